"""Published data sets: domains and general benchmarks, from a folder or the hub."""
