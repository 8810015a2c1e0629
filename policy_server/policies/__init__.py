"""What can stand behind a server: a model's policy, or a dummy that debugs a simulator without a model."""
