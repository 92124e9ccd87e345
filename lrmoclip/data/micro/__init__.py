"""The micro world: synthetic text, benchmarks, domains and databases, the same bytes everywhere."""
