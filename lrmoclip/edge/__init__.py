"""Where what a user writes is read, typed and checked."""
