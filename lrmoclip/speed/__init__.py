"""results/benchmarks.csv: what the store, the loss and the optimizer cost beside what others use.

One row is one comparison: `value` of `measure` for a contestant against a baseline, beside its
target.
"""

import sys

import pandas as pd
import torch

from lrmoclip.core import provenance
from lrmoclip.speed import loss, optimizer, steps, store

COLUMNS = [
    *("figure", "case", "contestant", "baseline", "measure", "value", "target", "met"),
    *("seconds", "baseline_seconds", "extra_mb", "baseline_extra_mb", "floor_seconds", "note"),
    *("device", "threads", "versions", "commit"),
]
PARTS = {
    "store": store.size,
    "restricted loss": loss.against_others,
    "crossover": loss.crossover,
    "scaling": loss.scaling,
    "stage 0": steps.stage0,
    "stage-1 step": steps.stage1,
    "optimizer": optimizer.against_others,
}


def measure_all() -> pd.DataFrame:
    """All comparisons on the CUDA device if there is one, else on the CPU with torch's threads."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, part in PARTS.items():
        print(f"speed: {name}", file=sys.stderr, flush=True)
        rows += part(device)
    made = provenance.stamp()
    packages = made["versions"] | provenance.versions_of(*loss.PACKAGES, *optimizer.PACKAGES)
    stamp = {
        "device": provenance.hardware(),
        "threads": torch.get_num_threads(),
        "versions": "; ".join(f"{name} {number}" for name, number in packages.items()),
        "commit": made["commit"],
    }
    return pd.DataFrame([row | stamp for row in rows], columns=COLUMNS)
