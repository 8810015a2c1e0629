"""How sure a success rate is, and a difference between two: numbers in, numbers out."""
