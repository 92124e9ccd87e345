"""Runs of several bases and seeds, as `Scored` has them, of outcomes that are given."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lrmoclip.report.scored import Scored

SCREENED = {"value": 0.75, "n": 300, "chance": 0.25, "p": 1e-9, "above": True}
CERTAIN = {**SCREENED, "chance": 0.0}


def scored(
    method: str,
    outcomes: Mapping[tuple[str, str], np.ndarray],
    *,
    base: str = "b0",
    seed: int = 0,
    domain: str = "telecom",
    record: dict | None = None,
    screening: dict | None = None,
) -> Scored:
    """outcomes: by benchmark and metric, a value an item."""
    series = {
        key: pd.Series(
            np.asarray(values, dtype=float),
            index=pd.MultiIndex.from_tuples([(f"{key[0]}-{i}", 0) for i in range(len(values))]),
        )
        for key, values in outcomes.items()
    }
    return Scored(
        path=Path(f"{base}/{domain}/{method}/seed{seed}/metrics.json"),
        key=("micro", base, domain, method),
        seed=seed,
        rows=pd.DataFrame(),
        values={key: float(values.mean()) for key, values in series.items()},
        items={key: len(values) for key, values in series.items()},
        outcomes=series,
        screening=screening or {"mmlu": SCREENED, "math": CERTAIN},
        record=record or {},
        weights="",
        wall_s=1.0,
    )
