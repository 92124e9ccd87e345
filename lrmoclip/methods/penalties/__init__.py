"""What is added to the objective, an entry a file."""
