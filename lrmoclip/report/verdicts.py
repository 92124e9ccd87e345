"""From an estimate and its error to a verdict on a claim, and a check of how often verdicts err.

Pure functions of numbers. Power by the noncentral t: Cohen, Statistical Power Analysis (1988),
ch. 2. Families of claims by Holm (Scandinavian Journal of Statistics 6:65, 1979). A smallest effect
of interest and what it takes to exclude it: Lakens, Social Psychological and Personality Science
8:355, 2017.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from statsmodels.stats.multitest import multipletests

from lrmoclip.report.statistics import over_bases

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
INCONCLUSIVE = "inconclusive"
NOT_TESTABLE = "not testable here"  # what it would take is not in our runs
NOT_YET = "not yet tested"
LEVEL, POWER = 0.05, 0.8
CHUNK = 250  # experiments simulated at a time, for memory


class Effect(NamedTuple):
    """A difference that is positive where it favours the claim, in the unit of its measure.

    low, high: its two-sided interval. p: two-sided, against no difference. detectable: the
    smallest true effect that such a test finds with 80 % power. NaN where the error is unknown.
    """

    estimate: float
    low: float
    high: float
    p: float
    standard_error: float
    df: float
    detectable: float


def effect(estimate: float, standard_error: float, df: float, level: float = LEVEL) -> Effect:
    """An Effect by Student's t.

    An error of zero, or of rounding alone, is no yardstick: where nothing varied, p is 1 at an
    estimate of zero (as at any error) and NaN elsewhere, and the smallest detectable effect NaN.
    """
    low, high, p = (float(number) for number in _tested(estimate, standard_error, df, level))
    found = np.nan if np.isnan(p) or standard_error == 0 else detectable(standard_error, df, level)
    return Effect(estimate, low, high, p, standard_error, df, found)


def _tested(estimate, standard_error, df, level: float = LEVEL) -> tuple[np.ndarray, ...]:
    """low, high and p, elementwise."""
    estimate, error, df = np.broadcast_arrays(estimate, standard_error, df)
    nothing_varied = error <= 1e-12 * np.abs(estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * scipy.stats.t.sf(np.abs(estimate / error), df)
        half_width = scipy.stats.t.isf(level / 2, df) * error
    p = np.where(nothing_varied, np.where(estimate == 0, 1.0, np.nan), p)
    half_width = np.where(nothing_varied, 0.0, half_width)
    return estimate - half_width, estimate + half_width, p


def detectable(
    standard_error: float, df: float, level: float = LEVEL, power: float = POWER
) -> float:
    """The smallest true effect that a two-sided t test at `level` finds with probability `power`.

    The effect d with P(T > t_(1 - level / 2, df)) = power, where T is noncentral t with df and
    noncentrality d / standard_error. To be found in the wrong direction does not count.
    """
    threshold = scipy.stats.t.isf(level / 2, df)
    return float(standard_error * scipy.special.nctdtrinc(df, 1 - power, threshold))


def holm(ps: Sequence[float]) -> np.ndarray:
    """p values adjusted for their family by Holm's step-down rule; NaN stays and does not count."""
    adjusted = np.array(ps, dtype=np.float64)
    known = ~np.isnan(adjusted)
    if known.any():
        adjusted[known] = multipletests(adjusted[known], method="holm")[1]
    return adjusted


def holm_of_many(ps: np.ndarray) -> np.ndarray:
    """`holm` of each row of (families, claims) without NaN, for thousands: multipletests
    collects garbage at every call."""
    order = np.argsort(ps, axis=1)
    steps = np.take_along_axis(ps, order, axis=1) * np.arange(ps.shape[1], 0, -1)
    adjusted = np.empty_like(steps)
    np.put_along_axis(adjusted, order, np.maximum.accumulate(steps, axis=1).clip(max=1), axis=1)
    return adjusted


def verdict(effect: Effect, adjusted_p: float, of_interest: float) -> str:
    """What an effect says of a claim. of_interest: the smallest effect that would matter, > 0.

    - supported: the effect is in the claim's direction, its p is below 5 % after adjustment for the
      family, and the interval does not exclude an effect that matters.
    - not supported: the whole interval lies below the smallest effect that matters. An effect of
      that size is excluded, be the true one small, none, or in the opposite direction.
    - inconclusive: neither. The runs cannot tell an effect that matters from none.
    - not testable here: the error is unknown.

    The interval is not adjusted for the family: "not supported" errs in 2.5 % of the claims whose
    true effect just matters, however many claims there are.
    """
    if not of_interest > 0:
        raise ValueError(f"of_interest: needs a size above zero, not {of_interest}")
    if np.isnan([effect.estimate, effect.high, adjusted_p]).any():
        return NOT_TESTABLE
    if effect.high < of_interest:
        return NOT_SUPPORTED
    return SUPPORTED if adjusted_p < LEVEL and effect.estimate > 0 else INCONCLUSIVE


@dataclass(frozen=True)
class Assumed:
    """How the paired differences of a claim vary. Assumptions, until runs give estimates.

    base_sd, seed_sd: of a base's and a seed's effect on the difference, points. flips: share of
    the items that one method solves and the other does not. items, base_items: how much of what
    decides an item's flip is the item's own on all bases, and on one base (the rest differs from
    seed to seed), as shares of the variance of a latent normal variable.
    """

    base_sd: float = 1.0
    seed_sd: float = 1.0
    flips: float = 0.2
    items: float = 0.3
    base_items: float = 0.2


def simulate_differences(
    rng: np.random.Generator,
    experiments: int,
    shape: tuple[int, int, int],
    size: float = 0.0,
    assumed: Assumed | None = None,
) -> np.ndarray:
    """(experiments, B, S, n) paired differences of binary outcomes in points: -100, 0 or 100.

    An ordered probit. On base b and seed s the mean difference is d = size + base_b + seed_s(b),
    normal effects, within +-100 flips; the difference is 100 with probability (flips + d) / 2 and
    -100 with (flips - d) / 2, by a standard normal variable with the items' parts of `Assumed`.
    The draws do not depend on `size`: equal generators give the same experiments at other sizes.
    """
    a, (bases, seeds, items) = assumed or Assumed(), shape

    def normal(share: float, *axes: int) -> np.ndarray:
        return np.float32(share**0.5) * rng.standard_normal((experiments, *axes), np.float32)

    latent = normal(1 - a.items - a.base_items, bases, seeds, items)
    latent += normal(a.base_items, bases, 1, items)
    latent += normal(a.items, 1, 1, items)
    mean = size + normal(a.base_sd**2, bases, 1, 1) + normal(a.seed_sd**2, bases, seeds, 1)
    mean = np.clip(mean.astype(np.float64) / 100, -a.flips, a.flips)  # (experiments, B, S, 1)
    better = latent > -scipy.special.ndtri((a.flips + mean) / 2)
    worse = latent < scipy.special.ndtri((a.flips - mean) / 2)
    return 100.0 * (better.astype(np.int8) - worse.astype(np.int8))


def check_machinery(
    shape: tuple[int, int, int] = (3, 2, 300),
    family: int = 6,
    planted: float = 10.0,
    repeats: int = 2000,
    seed: int = 0,
    assumed: Assumed | None = None,
) -> pd.DataFrame:
    """How often verdicts are right on simulated families of claims, each independent of the others.

    shape: (B, S, n) of each claim's paired differences. planted: points, also the claims' smallest
    effect of interest; 10 is about what the other defaults can find. Rows, one a `check`:

    - null: no claim is true. ok: at most 5 % of the families (and two standard errors of the
      simulation) have any supported claim.
    - null, any size: the same if every effect above zero is of interest, so that p alone decides.
    - planted: the first claim is true by `planted` points, the others are not, which is hardest for
      Holm. ok: that claim is supported in at least 80 %.
    - detectable at 80 %: the smallest `planted` for which that is so, by bisection; NaN, and its
      share that of the largest size possible, if the design reaches 80 % at none.

    With three bases "null, any size" is no longer ok where base_sd is 5 points or more: false
    positives of p alone rise to 7 or 8 %.

    Columns: size (points, of the true claim), supported (share of verdicts: on the true claim, or
    on all where none is), family_wise (share of families in which a claim that is not true is
    supported), bound, ok, repeats (families simulated), claims (in a family).
    """
    simulated = _Simulated(shape, repeats, seed, assumed or Assumed())
    others = [simulated.study(claim) for claim in range(1, family)]

    def supported(size: float, of_interest: float) -> np.ndarray:
        return _supported([simulated.study(0, size), *others], of_interest)  # (repeats, claims)

    rows = []
    bound = LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / repeats)
    for name, of_interest in [("null", planted), ("null, any size", np.finfo(float).tiny)]:
        found = supported(0.0, of_interest)
        any_found = found.any(axis=1).mean()
        rows.append((name, 0.0, found.mean(), any_found, bound, any_found <= bound))
    most = 100 * simulated.assumed.flips
    least = _bisect(lambda size: supported(size, size)[:, 0].mean() >= POWER, most)
    for name, size in [("planted", planted), ("detectable at 80 %", least)]:
        true = most if np.isnan(size) else size
        found = supported(true, true)
        power, any_false = found[:, 0].mean(), found[:, 1:].any(axis=1).mean()
        rows.append((name, size, power, any_false, POWER, power >= POWER))
    columns = ["check", "size", "supported", "family_wise", "bound", "ok"]
    return pd.DataFrame(rows, columns=columns).assign(repeats=repeats, claims=family)


@dataclass(frozen=True)
class _Simulated:
    shape: tuple[int, int, int]
    repeats: int
    seed: int
    assumed: Assumed

    def study(self, claim: int, size: float = 0.0) -> np.ndarray:
        """(3, repeats): estimates of one claim, upper ends of their intervals, and p."""
        rng = np.random.default_rng([self.seed, claim])
        parts = []
        for start in range(0, self.repeats, CHUNK):
            number = min(CHUNK, self.repeats - start)
            drawn = simulate_differences(rng, number, self.shape, size, self.assumed)
            found = over_bases([drawn])
            _, high, p = _tested(found.mean, found.standard_error, found.df)
            parts.append(np.stack([found.mean, high, p]))
        return np.concatenate(parts, axis=1)


def _supported(studies: Sequence[np.ndarray], of_interest: float) -> np.ndarray:
    """(repeats, claims): which claims of each family have that verdict."""
    estimates, highs, ps = np.stack(studies, axis=-1)  # each (repeats, claims)
    cells = zip(estimates.flat, highs.flat, holm_of_many(ps).flat, strict=True)
    unused = dict.fromkeys(["low", "p", "standard_error", "df", "detectable"], np.nan)
    found = [
        verdict(Effect(estimate=estimate, high=high, **unused), p, of_interest)
        for estimate, high, p in cells
    ]
    return np.reshape(found, ps.shape) == SUPPORTED


def _bisect(reached: Callable[[float], bool], most: float, steps: int = 8) -> float:
    """The smallest size at which `reached` becomes true, to `most` / 2^steps; NaN if at none."""
    if not reached(most):
        return np.nan
    low, high = 0.0, most
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
