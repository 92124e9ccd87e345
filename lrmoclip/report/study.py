"""`study.csv`: what each method gained and lost, for another base, another seed and other items.

One measure of one method on one domain a row, its interval, and how far a new base may lie."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from lrmoclip.config import Scale
from lrmoclip.core.errors import UserError
from lrmoclip.report import paired
from lrmoclip.report.paired import Grid
from lrmoclip.report.statistics import over_bases, prediction

STUDY = [
    *("scale", "domain", "method", "budget", "lr", "settings", "within", "measure"),
    *("bases", "seeds", "mean", "ci", "prediction", "prediction_df", "sd_of_bases"),
]
BASE = "base"
SCORE, GENERAL = "domain_score", "general_score"  # of the base models themselves


def study(
    grids: Mapping[tuple[str, str], Grid], scale: Scale, choices: pd.DataFrame
) -> pd.DataFrame:
    """The frame of `study.csv`.

    choices: of `learning_rates.csv`: which budget a method was chosen at, and whether its choice
    was within it. mean and its half-width ci: points, or as in run.json; prediction: the half-width
    of the interval in which the mean of one new base with as many seeds falls, by a t of
    prediction_df. Of the base models
    there are their own scores, which say whether another one is alike at all.
    """
    rows = []
    for domain in dict.fromkeys(domain for domain, _ in grids):
        first = next(grid for (where, _), grid in grids.items() if where == domain)
        rows += _rows(scale, domain, BASE, _of_bases(first), {})
    chosen = choices.set_index(["domain", "method"])
    for (domain, method), grid in grids.items():
        about = chosen.loc[[(domain, method)]].iloc[0] if (domain, method) in chosen.index else {}
        rows += _rows(scale, domain, method, _measures(grid), about)
    return pd.DataFrame(rows, columns=STUDY)


def _measures(grid: Grid) -> Iterator[tuple[str, list[np.ndarray]]]:
    for measure in paired.MEASURES:
        try:
            yield measure, grid.outcomes(measure)
        except UserError:
            continue  # it has none: no sets, no greedy answers
    for role, benchmark in grid.general.items():
        yield f"loss_of_{role}", [grid.loss_of(role)]
        for metric in filter(None, (benchmark.metric, benchmark.exact)):
            yield f"loss_of_{role}_{metric}", [grid.lost_by(role, metric)]


def _of_bases(grid: Grid) -> Iterator[tuple[str, list[np.ndarray]]]:
    domain = grid.scale.domain(grid.domain)
    yield SCORE, [grid.before((domain.task, domain.metric))]
    yield (
        GENERAL,
        [grid.before((found.task, found.metric)) for found in grid.general.values()],
    )


def _rows(scale: Scale, domain: str, method: str, measured, about) -> Iterator[dict]:
    for measure, outcomes in measured:
        found, ahead = over_bases(outcomes), prediction(outcomes)
        of_base = np.mean([array.mean(axis=(1, 2)) for array in outcomes], axis=0)  # (B,)
        yield {
            "scale": scale.name,
            "domain": domain,
            "method": method,
            **{key: about.get(key) for key in ("budget", "lr", "settings", "within")},
            "measure": measure,
            "bases": len(of_base),
            "seeds": outcomes[0].shape[1],
            "mean": round(float(found.mean), 4),
            "ci": round(float(found.half_width), 4),
            "prediction": round(float(ahead.half_width), 4),
            "prediction_df": round(float(ahead.df), 2),
            "sd_of_bases": round(float(of_base.std(ddof=1)), 4) if len(of_base) > 1 else np.nan,
        }
