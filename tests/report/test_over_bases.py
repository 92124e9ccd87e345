"""Intervals over bases, seeds and items, against an analysis of variance by statsmodels, closed
forms of simpler designs, and simulated binary outcomes."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api
import statsmodels.formula.api
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.report.statistics import mean_interval, over_bases, prediction_half_width
from lrmoclip.report.verdicts import Assumed, simulate_differences


def differences(rng, experiments, bases=3, **assumed):
    """[(experiments, B, 2, 300)]: paired differences of binary outcomes around 3 points."""
    shape, assumed = (bases, 2, 300), Assumed(**assumed)
    return [simulate_differences(rng, experiments, shape, size=3.0, assumed=assumed)]


def nested(rng, bases=3, seeds=2, items=(5, 8), leading=()):
    """(B, S, n) a benchmark, all components present, bases and seeds shared by the benchmarks."""
    shared = rng.normal(0, 1, (*leading, bases, 1, 1)) + rng.normal(
        0, 1, (*leading, bases, seeds, 1)
    )
    return [
        shared
        + rng.normal(0, 1, (*leading, 1, 1, n))
        + rng.normal(0, 0.5, (*leading, bases, 1, n))
        + rng.normal(0, 0.5, (*leading, bases, seeds, n))
        for n in items
    ]


def anova(array):
    """Mean squares of one (B, S, n) array and their degrees of freedom, by statsmodels."""
    axes = pd.MultiIndex.from_product(map(range, array.shape), names=["b", "s", "i"])
    frame = pd.Series(array.ravel(), axes, name="x").reset_index()
    # Sequential sums of squares; the design is balanced, so that their order does not matter.
    fit = statsmodels.formula.api.ols("x ~ C(b) * C(i) + C(b):C(s)", frame).fit()
    table = statsmodels.api.stats.anova_lm(fit, typ=1)
    names = {"base": "C(b)", "seed": "C(b):C(s)", "item": "C(i)", "cross": "C(b):C(i)"}
    squares = {name: table.loc[row, ["mean_sq", "df"]] for name, row in names.items()}
    return squares | {"noise": table.loc["Residual", ["mean_sq", "df"]]}


def components(squares, bases, seeds, items):
    """The components of the mean's variance from the expected mean squares, by the textbook."""
    e = squares["noise"]["mean_sq"]
    bi = max((squares["cross"]["mean_sq"] - e) / seeds, 0)
    i = max((squares["item"]["mean_sq"] - squares["cross"]["mean_sq"]) / (bases * seeds), 0)
    s = max((squares["seed"]["mean_sq"] - e) / items, 0)
    b = max((squares["base"]["mean_sq"] - e - seeds * bi - items * s) / (items * seeds), 0)
    return b, s, i, bi, e


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("base_sd", [0, 2])
def test_components_of_variance_are_those_of_an_analysis_of_variance(number, base_sd):
    B, S, n = 3, 2, 4
    rng = np.random.default_rng(number)
    array = nested(rng, B, S, [n])[0] + rng.normal(0, base_sd, (B, 1, 1))
    b, s, i, bi, e = components(anova(array), B, S, n)
    expected = b / B + s / (B * S) + i / n + bi / (B * n) + e / (B * S * n)
    assert over_bases([array]).standard_error ** 2 == pytest.approx(expected, rel=1e-9)


def test_bases_that_differ_have_satterthwaites_degrees_of_freedom():
    array = nested(np.random.default_rng(0), items=[4])[0] + np.array([0, 9, 30])[:, None, None]
    squares = anova(array)
    signs = {"base": 1, "item": 1, "cross": -1}  # b + i, b being what is left of all but items
    assert components(squares, 3, 2, 4)[2] > 0
    total = sum(sign * squares[name]["mean_sq"] for name, sign in signs.items())
    spread = sum(squares[name]["mean_sq"] ** 2 / squares[name]["df"] for name in signs)
    assert over_bases([array]).df == pytest.approx(total**2 / spread, rel=1e-9)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_new_base_is_predicted_from_the_components_of_bases_and_seeds(seeds):
    shifts = 9 * np.array([[0, 1], [9, 11], [30, 33]])[..., None]  # bases and seeds that differ
    array = nested(np.random.default_rng(0), items=[4])[0] + shifts
    squares = anova(array)
    # V_base + V_bi / n = (MS_base - MS_seed) / (S n), V_seed + V_e / n = MS_seed / n
    base, seed = squares["base"]["mean_sq"], squares["seed"]["mean_sq"]
    terms = {2: base * (1 + 1 / 3) / (2 * 4), 3: -seed * (1 + 1 / 3) / (2 * 4)}
    terms[3] += seed * (1 / seeds + 1 / 6) / 4
    variance = sum(terms.values())
    df = variance**2 / sum(term**2 / df for df, term in terms.items())
    expected = np.sqrt(variance) * scipy.stats.t.ppf(0.975, df)
    assert prediction_half_width([array], seeds) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_one_base_gives_the_interval_over_seeds_and_items_and_says_so(seeds):
    for number in range(20):
        arrays = nested(np.random.default_rng(number), bases=1, seeds=seeds)
        found = over_bases(arrays)
        expected = mean_interval([array[0] for array in arrays])
        assert (found.mean, found.half_width) == pytest.approx(expected, rel=1e-9)
        assert not found.other_bases and np.isnan(prediction_half_width(arrays))
    assert over_bases(nested(np.random.default_rng(0))).other_bases


def test_one_seed_a_base_gives_the_interval_over_bases_and_items():
    arrays = nested(np.random.default_rng(0), seeds=1)
    expected = mean_interval([array[:, 0] for array in arrays])
    found = over_bases(arrays)
    assert (found.mean, found.half_width) == pytest.approx(expected, rel=1e-9)


def test_leading_axes_are_experiments():
    arrays = nested(np.random.default_rng(0), leading=(7,))
    many, ahead = over_bases(arrays), prediction_half_width(arrays, seeds=1)
    for number in range(7):
        one = [array[number] for array in arrays]
        assert [part[number] for part in many[:4]] == pytest.approx(over_bases(one)[:4], rel=1e-9)
        assert ahead[number] == pytest.approx(prediction_half_width(one, seeds=1), rel=1e-9)


def test_bases_that_agree_by_chance_leave_what_their_seeds_show():
    # Each base scores 0.4 and 0.6 by its seeds, on every item: T_base = 0, T_seed = 0.02 / 6.
    array = np.broadcast_to(np.array([0.4, 0.6])[:, None], (3, 2, 50))
    found = over_bases([array])
    assert (found.standard_error**2, found.df) == pytest.approx((0.02 / 6, 3), rel=1e-9)


def test_more_seeds_in_the_new_base_make_its_mean_more_certain():
    arrays = nested(np.random.default_rng(1))
    one, same, many = (prediction_half_width(arrays, seeds) for seeds in (1, None, 20))
    assert one > same == prediction_half_width(arrays, seeds=2) > many


def test_nothing_that_varies_is_no_error_and_one_item_an_unknown_one():
    assert over_bases([np.ones((3, 2, 5))])[:2] == (1.0, 0.0)
    assert over_bases([np.ones((3, 2, 5))]).half_width == 0.0
    assert np.isnan(over_bases([np.ones((3, 2, 1))]).half_width)
    assert np.isnan(prediction_half_width([np.ones((3, 2, 1))]))


VARIED = [
    {"base_sd": 0.0, "seed_sd": 0.0, "items": 0.0, "base_items": 0.0},
    {},
    {"base_sd": 2.0},
    {"base_sd": 5.0},
    {"base_sd": 5.0, "items": 0.7},
    {"base_sd": 3.0, "seed_sd": 5.0, "items": 0.0},
    {"seed_sd": 4.0},
    {"base_items": 0.6},
    {"flips": 0.05, "items": 0.7},
]


# Where nothing but the noise of an item varies they are widest: three bases do not show that.
@pytest.mark.parametrize("varied", VARIED, ids=str)
def test_intervals_over_bases_cover_the_truth_about_95_percent_of_the_time(varied):
    found = over_bases(differences(np.random.default_rng(7), 1_500, **varied))
    assert 0.92 <= np.mean(np.abs(found.mean - 3.0) <= found.half_width) <= 0.99


@pytest.mark.parametrize("varied", VARIED, ids=str)
def test_a_new_base_falls_where_predicted_about_95_percent_of_the_time(varied):
    (all_bases,) = differences(np.random.default_rng(8), 1_500, bases=4, **varied)
    seen, new = all_bases[:, :3], all_bases[:, 3].mean(axis=(1, 2))
    distance = np.abs(over_bases([seen]).mean - new)
    assert 0.92 <= np.mean(distance <= prediction_half_width([seen])) <= 0.99


def test_bases_that_move_several_benchmarks_together_are_covered():
    rng = np.random.default_rng(9)
    found = over_bases(nested(rng, items=(30, 60, 200), leading=(2_000,)))
    assert 0.92 <= np.mean(np.abs(found.mean) <= found.half_width) <= 0.985


def test_the_error_is_that_of_repeated_experiments():
    # Bases that differ: nothing is cut off at zero, and the estimate of variance has no bias.
    found = over_bases(differences(np.random.default_rng(3), 3_000, base_sd=8.0, flips=0.5))
    assert np.mean(found.standard_error**2) == pytest.approx(np.var(found.mean), rel=0.08)


@given(st.integers(0, 10**6), st.floats(-50, 50), st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_estimates_follow_shift_and_scale_and_know_no_order(number, shift, scale):
    rng = np.random.default_rng(number)
    arrays = nested(rng)
    one = over_bases(arrays)
    moved = over_bases([scale * array + shift for array in arrays])
    assert moved.mean == pytest.approx(scale * one.mean + shift, rel=1e-6, abs=1e-6)
    assert moved.half_width == pytest.approx(scale * one.half_width, rel=1e-6)
    assert moved.df == pytest.approx(one.df, rel=1e-6)
    assert prediction_half_width([scale * array + shift for array in arrays]) == pytest.approx(
        scale * prediction_half_width(arrays), rel=1e-6
    )
    bases, seeds = rng.permutation(3), rng.permutation(2)
    shuffled = [array[bases][:, seeds][..., rng.permutation(array.shape[-1])] for array in arrays]
    assert over_bases(shuffled)[:4] == pytest.approx(one[:4], rel=1e-9)


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [np.ones((2, 3))],
        [np.ones((2, 2, 3)), np.ones((2, 3, 3))],
        [np.array([[[1.0, np.nan]]])],
    ],
    ids=["none", "no bases", "ragged seeds", "NaN"],
)
@pytest.mark.parametrize("function", [over_bases, prediction_half_width])
def test_nested_outcomes_that_make_no_sense_are_refused(function, outcomes):
    with pytest.raises(ValueError, match="outcomes"):
        function(outcomes)
