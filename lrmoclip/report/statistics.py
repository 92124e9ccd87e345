"""Intervals for a mean score over seeds and items, in closed form.

Crossed random effects: Searle, Casella & McCulloch, Variance Components (1992), ch. 4;
degrees of freedom by Satterthwaite (Biometrics Bulletin 2:110, 1946). Owen's pigeonhole bootstrap
(Annals of Applied Statistics 1:386, 2007) estimates the same variance; the tests compare the two.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats


class Interval(NamedTuple):
    """`mean` +- `half_width`, in the unit of the outcomes."""

    mean: float
    half_width: float


def mean_interval(outcomes: Sequence[np.ndarray], level: float = 0.95) -> Interval:
    """The interval of the macro average over benchmarks, for other seeds and other items.

    outcomes: one (S, n_b) matrix for each of B benchmarks, the same S seeds in the same order in
    each; benchmarks weigh the same whatever their n_b. With X_si = mu + seed_s + item_i + e_si,
    the variance of one benchmark's mean is (MS_seed + MS_item - MS_residual) / (S n). Over
    benchmarks the seeds' part comes from the S macro means, because a seed moves all benchmarks
    together, and the other parts add up. With I_b and R_b = MS_item_b and MS_residual_b, over
    B^2 S n_b:

        Var = var_s(macro mean of seed s) / S + sum_b (I_b - R_b)

    where no component of variance counts as less than zero: an item component where I_b < R_b,
    a seed component where the first term is below sum_b R_b. So Var is at least sum_b R_b, and
    seeds that agree by chance do not make an interval vanish.

    The half-width is Student's t with Satterthwaite's degrees of freedom times sqrt(Var).

    S = 1: over items only; what another seed would give is then unknown and not included.
    A benchmark of one item has no item variance: the half-width is NaN. Paired differences are
    outcomes like any other. Raises ValueError for no matrices, ragged seeds, or NaN.
    """
    matrices = [np.asarray(matrix, dtype=np.float64) for matrix in outcomes]
    if not matrices or any(m.ndim != 2 or m.size == 0 or np.isnan(m).any() for m in matrices):
        raise ValueError("outcomes: needs non-empty (seeds, items) matrices without NaN")
    if len({len(matrix) for matrix in matrices}) != 1:
        raise ValueError("outcomes: every benchmark needs the same seeds")

    macro = np.mean([matrix.mean(axis=1) for matrix in matrices], axis=0)  # (S,)
    mean = float(macro.mean())
    if any(matrix.shape[1] == 1 for matrix in matrices):
        return Interval(mean, float("nan"))

    seeds = len(macro)
    parts = [_mean_squares(matrix, weight=1 / len(matrices)) for matrix in matrices]
    seed_term = macro.var(ddof=1) / seeds if seeds > 1 else 0.0
    seeds_differ = seed_term > sum(residual for _, residual, _, _ in parts)

    # The variance as a sum of signed mean squares: (term, its degrees of freedom).
    terms = [(seed_term, seeds - 1)] if seeds_differ else []
    for item, residual, item_df, residual_df in parts:
        if item > residual:
            terms.append((item, item_df))
            if seeds_differ:
                terms.append((-residual, residual_df))
        elif residual > 0 and not seeds_differ:
            terms.append((residual, residual_df))
    variance = sum(term for term, _ in terms)
    if variance <= 0:
        return Interval(mean, 0.0)
    freedom = variance**2 / sum(term**2 / df for term, df in terms)
    quantile = scipy.stats.t.ppf((1 + level) / 2, max(freedom, 1.0))
    return Interval(mean, float(quantile * np.sqrt(variance)))


def _mean_squares(matrix: np.ndarray, weight: float) -> tuple[float, float, int, int]:
    """I and R of one (S, n) matrix, and their degrees of freedom; R = 0 where S = 1."""
    seeds, items = matrix.shape
    scale = weight**2 / (seeds * items)
    item_means = matrix.mean(axis=0)  # (n,)
    item = scale * seeds * item_means.var(ddof=1)
    rest = matrix - item_means - matrix.mean(axis=1, keepdims=True) + matrix.mean()  # (S, n)
    residual_df = (seeds - 1) * (items - 1)
    residual = scale * (rest**2).sum() / residual_df if residual_df else 0.0
    return item, residual, items - 1, residual_df
