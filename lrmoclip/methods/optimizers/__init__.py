"""How weights move, an entry a file."""
