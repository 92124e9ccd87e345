"""The at-chance rule: the base is scored on every general benchmark that has data, a method on
those on which the base is significantly above chance, by a one-sided exact binomial test."""

import scipy.stats

from lrmoclip.config.parts import Benchmark
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.data import records

LEVEL = 0.05


def above_chance(value: float, n: int, chance: float) -> float:
    """p of the one-sided exact test that a share `value` of n items is more than chance alone."""
    return float(scipy.stats.binomtest(round(value * n), n, chance, "greater").pvalue)


def with_data(general: dict[str, Benchmark], data: Folder, split: str) -> dict[str, Benchmark]:
    """The roles of a scale's `general` whose `split` the data folder has. UserError for one of
    which it has nothing and does not say why."""
    missing = data.about.get("missing", {})
    for role, benchmark in general.items():
        parts = (records.split_of(benchmark.task, part) for part in ("test", "validation"))
        if role not in missing and not any(part in data for part in parts):
            raise UserError(
                f"{data.path}: no data of {benchmark.task} (general.{role})",
                "Mend the task's name in the scale's config, or make the data again",
            )
    return {r: b for r, b in general.items() if records.split_of(b.task, split) in data}


def screen(scores: list[dict], general: dict[str, Benchmark], facts: dict) -> dict[str, dict]:
    """By role, `value`, `n`, `chance`, `p` and `above` of the base's main metric, or `missing` with
    the reason; perplexities are not tested. facts: what the data folder's manifest says.

    `chance` is the benchmark's own or, without one, the manifest's. Where the items differ in their
    number of options the test at their mean chance errs on the careful side, since a sum of unequal
    Bernoullis varies less than the binomial. Raises UserError for a benchmark without chance or
    score.
    """
    rows = {(row["benchmark"], row["metric"]): row for row in scores}
    found: dict[str, dict] = {}
    for role, benchmark in general.items():
        task, metric = benchmark.task, benchmark.metric
        if (why := facts.get("missing", {}).get(role)) is not None:
            found[role] = {"missing": why}
        elif benchmark.averaged:
            if (row := rows.get((task, metric))) is None:
                raise UserError(f"{task}: no metric {metric} among its scores")
            chance = benchmark.chance
            if chance is None:
                chance = facts.get("chance", {}).get(role)
            if chance is None:
                raise UserError(f"general.{role}: no chance level", "Add the key chance")
            p = above_chance(row["value"], row["n"], chance)
            found[role] = {"value": row["value"], "n": row["n"], "chance": chance, "p": p}
            found[role]["above"] = p < LEVEL
    return found


def worth_scoring(
    general: dict[str, Benchmark], screening: dict[str, dict]
) -> dict[str, Benchmark]:
    """The roles on which a method is scored: those above chance, and perplexities."""
    return {
        role: benchmark
        for role, benchmark in general.items()
        if screening.get(role, {}).get("above", not benchmark.averaged)
        and "missing" not in screening.get(role, {})
    }
