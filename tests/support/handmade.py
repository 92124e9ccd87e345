"""Runs written by hand, as training and evaluation leave them, small enough to check on paper."""

from pathlib import Path

import numpy as np
import pandas as pd

from lrmoclip.config import Scale, load
from lrmoclip.config.parts import Benchmark, Domain
from lrmoclip.core import files
from lrmoclip.evaluate.screening import screen
from lrmoclip.report.kinds import EVALUATION, METRICS_FILE, RUN, RUN_FILE, SAMPLES
from tests.support.workflow import TINY

GENERAL = {
    # 3 of 4 are above chance: p = 4 * 0.2^3 * 0.8 + 0.2^4 = 0.0272
    "mmlu": {"task": "micro_mmlu", "kind": "choice", "metric": "acc", "chance": 0.2},
    "math": {"task": "micro_math", "kind": "generate", "metric": "exact_match", "chance": 0.0},
}
TELECOM = {"task": "telecom", "kind": "choice", "metric": "acc", "exact": "exact_match"}
# Outcomes by item. (telecom acc, telecom exact_match, micro_mmlu acc, micro_math exact_match)
BASE = ([0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0])
FULL = {
    1: ([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0]),
    2: ([1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0]),
}
REPLAYED = {
    1: ([1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0], [1, 0]),
    2: ([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1]),
}
MEASURED = [
    ("telecom", "acc"),
    ("telecom", "exact_match"),
    ("micro_mmlu", "acc"),
    ("micro_math", "exact_match"),
]
ABOVE = {"value": 0.75, "n": 4, "chance": 0.2, "p": 0.0272, "above": True}
AT_CHANCE = {"value": 0.75, "n": 4, "chance": 0.25, "p": 13 / 256, "above": False}
PERPLEXITY = {
    "task": "wikitext", "kind": "harness", "metric": "word_perplexity", "averaged": False,
}  # fmt: skip


def scale(general: dict = GENERAL, **domains: dict) -> Scale:
    """The scale of these runs, with other benchmarks where they are given."""
    found = {"telecom": TELECOM, **domains}
    return load(TINY).model_copy(
        update={
            "scale": "micro",
            "methods": ["lr_moclip", "full_ft"],
            "general": {role: Benchmark(**entry) for role, entry in general.items()},
            "domains": {name: Domain(**entry) for name, entry in found.items()},
        }
    )


def write_run(
    root: Path, method: str, seed: int, outcomes, *, record=None, domain="telecom",
    screening=None, perplexity=None, empty=(),
) -> Path:  # fmt: skip
    """A run's folder; the path of its metrics.json. perplexity: of wikitext.
    empty: outcomes of the domain's items whose gold result is empty. A base has its own screening
    unless one is given."""
    head = {"scale": "micro", "base": "qwen3-s0", "domain": domain, "method": method}
    folder = root / "micro" / domain / method / f"seed{seed}"
    folder.mkdir(parents=True)
    samples, rows = [], []
    measured = list(zip(MEASURED, outcomes, strict=True))
    if len(empty):
        measured.append((("telecom", "execution_accuracy_empty"), empty))
    for (benchmark, metric), values in measured:
        key = {"benchmark": benchmark, "split": "test", "metric": metric}
        rows.append(key | {"value": float(np.mean(values)), "n": len(values)})
        samples += [
            key | {"item": f"{benchmark}-{i}", "value": float(v)} for i, v in enumerate(values)
        ]
        rows.append(key | {"split": "validation", "value": 0.123, "n": 1})
    if perplexity is not None:
        key = {"benchmark": "wikitext", "split": "test", "metric": "word_perplexity"}
        rows.append(key | {"value": perplexity, "n": 2})
        # What a perplexity is made from; its mean says nothing.
        samples += [key | {"item": f"page-{i}", "value": -100.0} for i in range(2)]
    # Items pair by their hash, whatever the order they lie in.
    pd.DataFrame(samples[:: 1 if seed % 2 else -1]).to_parquet(folder / SAMPLES)
    document = head | {"seed": seed, "rows": rows, "provenance": {}, "wall_s": 1.0}
    if method == "base":
        of_test = [row for row in rows if row["split"] == "test"]
        document["screening"] = screening or screen(of_test, scale().general, {})
    document["files"] = {SAMPLES: files.sha256(folder / SAMPLES)}
    files.write_sealed(folder / METRICS_FILE, EVALUATION, {**document, "weights": f"of {seed}"})
    if record is not None:
        files.write_sealed(folder / RUN_FILE, RUN, {**record, "weights": f"of {seed}"})
    return folder / METRICS_FILE


def write_study(root: Path, *, screening=None, perplexities=(None, None, None)) -> list[Path]:
    """The base, full_ft and lr_moclip with two seeds each."""
    before, full, replayed = perplexities
    none = {"gold_in_set": None, "outside_mass": None}
    sets = {"gold_in_set_eos": 1.0, "set_size_mean": 6.5, "outside_mass_start": 0.01}
    paths = [write_run(root, "base", 0, BASE, screening=screening, perplexity=before)]
    for seed, outcomes in FULL.items():
        record = {"loss_spikes": seed} | none
        paths.append(write_run(root, "full_ft", seed, outcomes, record=record, perplexity=full))
    for seed, outcomes in REPLAYED.items():
        own = {"gold_in_set": 0.9 + seed / 100, "outside_mass": seed / 10}
        record = {"loss_spikes": 0} | sets | own
        paths.append(
            write_run(root, "lr_moclip", seed, outcomes, record=record, perplexity=replayed)
        )
    return paths


def hours() -> pd.DataFrame:
    """costs.csv of the study."""
    rows = [
        ("full_ft", 1, "stage1", 3.0),
        ("full_ft", 1, "evaluation", 9.0),
        ("full_ft", 2, "stage1", 5.0),
        ("lr_moclip", 1, "stage0", 0.5),
        ("lr_moclip", 1, "stage1", 2.0),
        ("lr_moclip", 1, "probe", 9.0),
        ("lr_moclip", 2, "stage0", 0.5),
        ("lr_moclip", 2, "stage1", 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["method", "seed", "stage", "device_hours"])
    return frame.assign(scale="micro", base="qwen3-s0", domain="telecom")
