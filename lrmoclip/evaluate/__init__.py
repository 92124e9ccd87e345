"""Benchmarks by lm-evaluation-harness, and the screening against chance."""
