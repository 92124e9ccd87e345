"""The choice among trials: at a budget of b points of general skill, the trial with the most domain
gain whose general loss on validation stays within b. The older rule, gain minus loss, stands beside
it."""

from collections.abc import Iterable
from statistics import fmean

import pandas as pd

from lrmoclip.config import Scale
from lrmoclip.core.errors import UserError

RATES = "learning rates"  # of artefacts
SWEEPS, PROVENANCE = "tuning.csv", "tuning_provenance.json"  # beside a file of choices
SLACK, CONTENDERS = 2.0, 2  # points above a budget, and trials, that are looked at once more

KEYS = ["scale", "base", "domain", "method"]
SWEEP = [*KEYS, "lr", "settings", "seed", "domain_gain", "general_loss"]  # columns of a sweep
NET = ["lr", "settings", "domain_gain", "general_loss"]  # of the choice by the older rule


def means(rows: Iterable[dict]) -> list[dict]:
    """A row a trial that did not diverge with any seed: means over its seeds, and their number."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["lr"], row["settings"]), []).append(row)
    found = []
    for group in groups.values():
        if all(_known(row["domain_gain"]) and _known(row["general_loss"]) for row in group):
            numbers = [key for key in group[0] if key not in (*SWEEP[:7], "reason")]
            mean = {key: fmean(r[key] for r in group) for key in numbers if _known(group[0][key])}
            found.append({**group[0], **mean, "seeds": len(group)})
    return found


def at_budget(trials: list[dict], budget: float) -> dict:
    """Of `means`, the one with the most gain within the budget, of equals that of the least loss
    and then of the lowest rate; where none is within it, the one of the least loss. `within` says
    which."""
    within = [trial for trial in trials if trial["general_loss"] <= budget]
    if within:
        best = min(within, key=lambda t: (-t["domain_gain"], t["general_loss"], t["lr"]))
    else:
        best = min(trials, key=lambda t: (t["general_loss"], t["lr"]))
    return {**best, "budget": budget, "within": bool(within)}


def by_net(trials: list[dict]) -> dict:
    """The best of gain minus loss, of equals that of the lowest rate."""
    return min(trials, key=lambda t: (t["general_loss"] - t["domain_gain"], t["lr"]))


def choose(swept: pd.DataFrame, scale: Scale) -> pd.DataFrame:
    """A row a base, domain, method and budget, the method named as `Scale.at_budget` has it: its
    choice, whether it lies within the budget and on the edge of its rates, of how many trials; and
    the choice by gain minus loss. UserError for a method that diverged in every trial."""
    rows = []
    for keys, group in swept.groupby(KEYS, sort=False):
        trials = means(group.to_dict("records"))
        if not trials:
            raise UserError(f"{'/'.join(keys)}: diverged at every rate", "Add lower rates")
        net = {f"{key}_net": by_net(trials)[key] for key in NET}
        for budget in scale.tuning.budgets:
            best = at_budget(trials, budget)
            edge, name = on_edge(best, trials), scale.at_budget(keys[-1], budget)
            kept = {key: best[key] for key in best if key not in ("seed", "reason")}
            rows.append({**kept, "method": name, "edge": edge, "trials": len(trials), **net})
    return pd.DataFrame(rows)


def replaced(kept: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The rows of `kept`, those of the methods in `fresh` (by base and domain) replaced by its
    rows, at the end."""
    new = set(fresh[KEYS].itertuples(index=False, name=None))
    stays = [key not in new for key in kept[KEYS].itertuples(index=False, name=None)]
    return pd.concat([kept[stays], fresh], ignore_index=True)


def choices(rows: list[dict], budgets: list[float]) -> list[dict]:
    """The choice at each budget; none where every trial diverged."""
    trials = means(rows)
    return [at_budget(trials, budget) for budget in budgets] if trials else []


def contenders(rows: list[dict], budget: float) -> list[dict]:
    """The choice at a budget and what came next to it."""
    trials = means(rows)
    close = [trial for trial in trials if trial["general_loss"] <= budget + SLACK]
    close.sort(key=lambda t: (-t["domain_gain"], t["general_loss"], t["lr"]))
    if not trials:
        return []
    best = at_budget(trials, budget)
    others = [t for t in close if (t["lr"], t["settings"]) != (best["lr"], best["settings"])]
    return [best, *others[: CONTENDERS - 1]]


def on_edge(trial: dict, trials: list[dict]) -> bool:
    """Whether a trial's rate is the lowest or the highest that was tried with its settings."""
    rates = [other["lr"] for other in trials if other["settings"] == trial["settings"]]
    return trial["lr"] in (min(rates), max(rates))


def _known(value: float | None) -> bool:
    return value is not None and value == value
