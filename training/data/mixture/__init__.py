"""Several datasets as one: what they must agree in, and what they are together."""
