"""Which weights are trained, an entry a file."""
