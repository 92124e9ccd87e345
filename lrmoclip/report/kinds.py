"""Kinds of artefacts that runs are, and their files."""

RUN, EVALUATION = "run", "evaluation"
TRAINED, SCORED = "trained", "scored"  # say that the runs of some seeds are there
METRICS_FILE, SAMPLES, RUN_FILE = "metrics.json", "samples.parquet", "run.json"
