"""Stage 0, Stage 1, and what a run watches and resumes from."""
