"""Candidate sets, the store, the losses, heads, MoClip; and what is made of files. Imports nothing above."""
