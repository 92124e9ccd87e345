"""How much of its general skill a model has lost, in points of 100: what the budgets of tuning and
the study's claims are about.

A benchmark's main metric counts above chance, the greedy exact answer, where it has one, beside it:
choice alone hides what greedy answers show. Benchmarks weigh the same, whatever they lose in."""

from collections.abc import Iterable, Mapping

from lrmoclip.config.parts import Benchmark


def weights(benchmark: Benchmark, chance: float | None) -> dict[str, float]:
    """By metric, what a point of it is worth: for a main metric with a chance level c, 1 / (1 - c)
    over the number of metrics."""
    metrics = [benchmark.metric, *filter(None, [benchmark.exact])]
    own = 1 - (chance or 0.0)
    return {m: 1 / (len(metrics) * (own if m == benchmark.metric else 1)) for m in metrics}


def lost(
    before: Iterable[dict],
    after: Iterable[dict],
    general: Mapping[str, Benchmark],
    chances: Mapping[str, float],
) -> float:
    """Points of skill lost, the mean over the roles of `general`.

    before, after: rows of `benchmark, metric, value` of the base and of the model, values from 0
    to 1. chances: by role. Raises KeyError for a measurement that is missing.
    """
    first, then = (
        {(r["benchmark"], r["metric"]): r["value"] for r in rows} for rows in (before, after)
    )
    losses = [
        sum(
            weight * (first[benchmark.task, metric] - then[benchmark.task, metric])
            for metric, weight in weights(benchmark, chances.get(role)).items()
        )
        for role, benchmark in general.items()
    ]
    return 100 * sum(losses) / len(losses)
