"""Which general benchmarks count: those on which the base model is better than chance, as it was
screened (`evaluate.screening`). What a base at chance loses is noise, so such a benchmark enters
neither `general` nor `forgetting`."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from lrmoclip.config import Scale
from lrmoclip.config.parts import Benchmark
from lrmoclip.core.errors import UserError
from lrmoclip.report.scored import Scored

AT_CHANCE, PERPLEXITY = "at chance, not in forgetting", "perplexity, not averaged"
GENERAL = [
    *("scale", "base", "role", "tasks", "metric", "n", "chance", "base_score", "base_ci", "p"),
    *("above_chance", "resolution", "note"),
]


@dataclass(frozen=True)
class Screened:
    """A general benchmark under the base model; `value` and `chance` from 0 to 1, perplexities as
    they are. `missing` says why there are no data; `value` is then NaN and `n` 0."""

    task: str
    metric: str
    averaged: bool = True
    value: float = np.nan
    n: int = 0
    chance: float = np.nan
    p: float = np.nan
    above: bool = False
    missing: str | None = None

    @property
    def counts(self) -> bool:
        """Whether `general` and `forgetting` average over it."""
        return self.averaged and self.missing is None and self.above

    @property
    def note(self) -> str:
        if self.missing is not None:
            return f"no data: {self.missing}"
        if not self.averaged:
            return PERPLEXITY
        return "" if self.above else AT_CHANCE


def counted(base: Scored, scale: Scale) -> dict[str, Screened]:
    """Every role of a scale's `general` under the base model, as its `metrics.json` screened them.

    Raises UserError for a role that the screening leaves out, and for one that was not measured.
    """
    return {role: _screened(base, role, benchmark) for role, benchmark in scale.general.items()}


def _screened(base: Scored, role: str, benchmark: Benchmark) -> Screened:
    task, metric, found = benchmark.task, benchmark.metric, base.screening.get(role)
    if found and "missing" in found:
        return Screened(task, metric, benchmark.averaged, missing=found["missing"])
    if not benchmark.averaged:
        return Screened(task, metric, False, base.value(task, metric), base.items[task, metric])
    if found is None:
        raise UserError(f"{base.path} has no screening of {role}", "Evaluate the base again.")
    names = ("value", "n", "chance", "p", "above")
    return Screened(task, metric, **{name: found[name] for name in names})


def resolution(items: int) -> float:
    """Points that so many items can tell apart: half-width of the 95 % interval of a share of one
    half, 98 / sqrt(items); of a paired difference, too, when a quarter of the items change."""
    return 100 * float(scipy.stats.norm.ppf(0.975)) * 0.5 / np.sqrt(items) if items else np.nan


def wilson(value: float, n: int) -> float:
    """Half-width, in points, of the 95 % Wilson interval of a share `value` of n items."""
    low, high = scipy.stats.binomtest(round(value * n), n).proportion_ci(method="wilson")
    return 50 * (high - low)


def general(runs: Iterable[Scored], scale: Scale) -> pd.DataFrame:
    """`general.csv`: one row a base and role; scores, chance and resolution in percent, and a
    perplexity as it is. The base is scored with each domain; its first record is read."""
    rows, seen = [], set()
    for run in sorted(runs, key=lambda run: (run.key, run.seed)):
        if run.method != "base" or run.key[:2] in seen:
            continue
        seen.add(run.key[:2])
        for role, found in counted(run, scale).items():
            head = {"scale": run.key[0], "base": run.key[1], "role": role}
            rows.append(head | _row(found))
    return pd.DataFrame(rows, columns=GENERAL)


def _row(found: Screened) -> dict:
    row = {"tasks": found.task, "metric": found.metric, "note": found.note}
    if found.missing is not None:
        return row
    row |= {"n": found.n, "base_score": found.value}
    if found.averaged:
        row |= {"base_score": 100 * found.value, "base_ci": wilson(found.value, found.n)}
        row |= {"chance": 100 * found.chance, "p": found.p, "above_chance": found.above}
        row |= {"resolution": resolution(found.n)}
    return row
