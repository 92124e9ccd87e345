"""`fronts.csv`: every trial of every method, what it gained in the domain and what it cost in
general skill; and comparisons at equal rates, which need no choice."""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy.stats
import statsmodels.api as sm

from lrmoclip.report.verdicts import LEVEL, holm
from lrmoclip.train.choosing import KEYS, means

MEASURES = ["domain_gain", "exact_gain", "general_loss", "kl_general", "kl_domain", "nll_general"]
MEASURES += ["drift"]
FRONTS = [*KEYS, "lr", "settings", "seeds", "split", *MEASURES, "on_front", "reason"]
SMALLEST_KL = 1e-6  # nats, for a logarithm
WORTH_NAMING = 2.0  # points off the curve
EQUAL_RATES = [
    *("scale", "base", "domain", "method", "against", "lr", "settings", "settings_against"),
    *("domain_gain", "exact_gain", "general_loss"),
]


def fronts(sweeps: pd.DataFrame) -> pd.DataFrame:
    """A row a trial, means over its seeds, those that diverged with their reason and no measures.

    sweeps: rows of `tuning.csv`. on_front: no other trial of the method gains more and loses no
    more, or loses less and gains no less.
    """
    rows = []
    for _, group in sweeps.groupby(KEYS, sort=False):
        found = means(group.to_dict("records"))
        best = [trial for trial in found if not any(_beats(other, trial) for other in found)]
        rows += [trial | {"on_front": trial in best, "reason": None} for trial in found]
        failed = group[group["domain_gain"].isna()].drop_duplicates(["lr", "settings"])
        rows += [
            {**{key: row[key] for key in [*KEYS, "lr", "settings", "reason"]}, "on_front": False}
            for row in failed.to_dict("records")
        ]
    table = pd.DataFrame(rows, columns=FRONTS).assign(split="validation")
    table[MEASURES] = table[MEASURES].round(4)
    return table.sort_values([*KEYS, "settings", "lr"], ignore_index=True)


def _beats(one: dict, other: dict) -> bool:
    pair = [(t["domain_gain"], -t["general_loss"]) for t in (one, other)]
    return pair[0] != pair[1] and all(a >= b for a, b in zip(*pair, strict=True))


def at_equal_rates(table: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """What a method's trials have beyond another's at the same rate, for pairs of their names;
    of `fronts`. Where both have a setting in common (a cap), it must be the same.

    Differences in points: of the gains (more is better) and of the loss (less is better).
    """
    known = table[table["reason"].isna() | (table["reason"] == "")]
    rows = []
    for one, other in pairs:
        left, right = (known[known["method"] == name] for name in (one, other))
        both = left.merge(right, on=["scale", "base", "domain", "lr"], suffixes=("", "_against"))
        for row in both.to_dict("records"):
            mine, theirs = (json.loads(row[k]) for k in ("settings", "settings_against"))
            if any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys()):
                continue
            measures = EQUAL_RATES[-3:]
            rows.append(
                {key: row[key] for key in EQUAL_RATES[:-3] if key in row}
                | {"against": other}
                | {name: round(row[name] - row[f"{name}_against"], 4) for name in measures}
            )
    return pd.DataFrame(rows, columns=EQUAL_RATES)


def curve(trials: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Points lost over KL(base || model) on general text: LOWESS over log KL of all trials that are
    given; both sorted by KL."""
    kl = trials["kl_general"].to_numpy().clip(SMALLEST_KL)
    x, y = sm.nonparametric.lowess(trials["general_loss"].to_numpy(), np.log(kl), frac=0.4).T
    return np.exp(x), y


def departures(table: pd.DataFrame) -> pd.DataFrame:
    """How far the trials of each method lie above the curve of all methods on its domain: points
    that it forgot beyond what its KL to the base predicts (https://arxiv.org/abs/2509.04259).

    leaves: its mean is off the curve by two points or more, and by more than its trials vary (t
    test, Holm over the methods of a domain). Trials of a method are not independent: a guide.
    """
    known = table[table["kl_general"].notna() & table["general_loss"].notna()]
    rows = []
    for domain, trials in known.groupby("domain", sort=False):
        x, y = curve(trials)
        above = trials["general_loss"] - np.interp(
            np.log(trials["kl_general"].clip(SMALLEST_KL)), np.log(x), y
        )
        by_method = above.groupby(trials["method"], sort=False)
        ps = [
            scipy.stats.ttest_1samp(group, 0).pvalue if len(group) > 1 else np.nan
            for _, group in by_method
        ]
        for (method, group), p in zip(by_method, holm(ps), strict=True):
            leaves = bool(p < LEVEL and abs(group.mean()) >= WORTH_NAMING)
            rows.append((domain, method, len(group), round(group.mean(), 3), p, leaves))
    return pd.DataFrame(rows, columns=["domain", "method", "trials", "above", "p", "leaves"])
