"""Candidate sets, the store, the losses, heads, MoClip; and how files are made. It imports
nothing from the wings above it."""
