"""The axes of a method, an entry each."""
