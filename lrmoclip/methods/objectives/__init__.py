"""What is minimised, an entry a file."""
