"""The subcommands, one a module: read files, call the library, write files. Paths come from the
caller."""
