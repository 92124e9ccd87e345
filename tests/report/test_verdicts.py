"""Verdicts against closed forms, other libraries, and simulated claims whose truth is known."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from lrmoclip.report.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    SUPPORTED,
    Assumed,
    check_machinery,
    detectable,
    effect,
    holm,
    holm_of_many,
    simulate_differences,
    verdict,
)

PS = st.lists(st.floats(0, 1), min_size=1, max_size=8)
ERRORS = st.floats(0.01, 100)
DFS = st.floats(1, 1e4)


def holm_by_hand(ps):
    """The k-th smallest of m p values times m - k + 1, and never below the one before."""
    adjusted, so_far = [np.nan] * len(ps), 0.0
    known = sorted((p, place) for place, p in enumerate(ps) if p == p)
    for rank, (p, place) in enumerate(known):
        so_far = max(so_far, min(1.0, p * (len(known) - rank)))
        adjusted[place] = so_far
    return adjusted


# One sample of n + 1 differences of standard deviation 1: the error is 1 / sqrt(n + 1).
@pytest.mark.parametrize("df", [2, 5, 20, 300])
@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_detectable_effect_has_that_power_by_statsmodels(df, level, power):
    size = detectable(1 / np.sqrt(df + 1), df, level, power)
    found = TTestPower().power(size, nobs=df + 1, alpha=level / 2, alternative="larger")
    assert found == pytest.approx(power, abs=1e-4)


def test_the_detectable_effect_has_that_power_by_simulation():
    rng = np.random.default_rng(0)
    size = detectable(2.0, df=5)
    errors = 2.0 * np.sqrt(rng.chisquare(5, 40_000) / 5)
    t = rng.normal(size, 2.0, 40_000) / errors
    assert np.mean(t > scipy.stats.t.ppf(0.975, 5)) == pytest.approx(0.8, abs=0.01)


def test_an_effect_is_scipys_t_test_of_one_sample():
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    test = scipy.stats.ttest_1samp(values, 0)
    found = effect(values.mean(), scipy.stats.sem(values), 11)
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@given(st.floats(-50, 50), ERRORS, DFS, ERRORS)
@settings(deadline=None)
def test_an_effect_in_another_unit_is_the_same_effect(estimate, error, df, unit):
    one, other = effect(estimate, error, df), effect(unit * estimate, unit * error, df)
    assert other.p == pytest.approx(one.p, rel=1e-6)
    for name in ("low", "high", "detectable"):
        expected = unit * getattr(one, name)
        assert getattr(other, name) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.floats(-50, 50), ERRORS, DFS)
@settings(deadline=None)
def test_an_interval_excludes_zero_where_p_is_below_5_percent(estimate, error, df):
    found = effect(estimate, error, df)
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_an_error_of_zero_is_no_yardstick():
    same, apart = effect(0.0, 0.0, np.nan), effect(2.0, 0.0, np.nan)
    assert (same.low, same.high, same.p) == (0.0, 0.0, 1.0)
    assert apart.high == 2.0 and np.isnan([apart.p, apart.detectable]).all()
    rounded = effect(0.1, 1e-18, 4.0)
    assert np.isnan([rounded.p, rounded.detectable]).all()
    assert verdict(same, same.p, of_interest=1.0) == NOT_SUPPORTED
    assert verdict(apart, apart.p, of_interest=1.0) == NOT_TESTABLE


@given(st.lists(st.floats(0, 1) | st.just(np.nan), max_size=8))
@settings(max_examples=30, deadline=None)
def test_holm_is_the_rule_by_hand_and_leaves_what_is_unknown(ps):
    np.testing.assert_allclose(holm(ps), holm_by_hand(ps), rtol=1e-12)


def test_holm_of_four():
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 (not below the one before), 0.5 * 1.
    assert holm([0.5, 0.01, np.nan, 0.03, 0.02]) == pytest.approx(
        [0.5, 0.04, np.nan, 0.06, 0.06], nan_ok=True
    )


def test_holm_of_many_families_is_holm_of_each():
    ps = np.random.default_rng(0).uniform(0, 0.3, (12, 6)).round(2)  # with ties
    np.testing.assert_allclose(holm_of_many(ps), [holm(row) for row in ps], rtol=1e-12)


@pytest.mark.parametrize(
    ("estimate", "error", "adjusted_p", "expected"),
    [
        (2.0, 0.5, 0.01, SUPPORTED),
        (2.0, 0.5, 0.06, INCONCLUSIVE),  # not significant among the family
        (0.5, 0.1, 0.001, NOT_SUPPORTED),  # there, and too small to matter
        (0.0, 0.1, 1.0, NOT_SUPPORTED),
        (-2.0, 0.5, 0.01, NOT_SUPPORTED),  # the opposite
        (0.0, 1.0, 1.0, INCONCLUSIVE),
        (-2.0, 4.0, 0.01, INCONCLUSIVE),
        (2.0, np.nan, np.nan, NOT_TESTABLE),
        (2.0, 0.5, np.nan, NOT_TESTABLE),
    ],
)
def test_verdicts(estimate, error, adjusted_p, expected):
    assert verdict(effect(estimate, error, df=100.0), adjusted_p, of_interest=1.0) == expected


@given(st.floats(-50, 50), ERRORS, DFS, st.floats(0, 1), ERRORS)
@settings(deadline=None)
def test_supported_is_found_and_not_supported_excludes_what_matters(
    estimate, error, df, adjusted_p, of_interest
):
    found = effect(estimate, error, df)
    word = verdict(found, adjusted_p, of_interest)
    assert word in (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE)
    assert (word == NOT_SUPPORTED) == (found.high < of_interest)
    if word == SUPPORTED:
        assert found.estimate > 0 and adjusted_p < 0.05


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_a_size_of_interest_is_above_zero(size):
    with pytest.raises(ValueError, match="of_interest"):
        verdict(effect(1.0, 1.0, 5.0), 0.5, size)


def test_simulated_differences_have_the_size_and_the_components_that_were_asked():
    assumed = Assumed(base_sd=3.0, seed_sd=2.0, flips=0.4)
    found = simulate_differences(np.random.default_rng(0), 3_000, (2, 2, 200), 5.0, assumed)
    assert set(np.unique(found)) == {-100.0, 0.0, 100.0}
    assert found.mean() == pytest.approx(5.0, abs=0.2)
    assert np.mean(found != 0) == pytest.approx(0.4, abs=0.005)
    # Of two seeds the halves of the items are independent but for what the seed and base move.
    half, other = found[..., :100].mean(-1), found[..., 100:].mean(-1)
    between_bases = np.mean((half[:, 0, 0] - half[:, 1, 0]) * (other[:, 0, 0] - other[:, 1, 0])) / 2
    between_seeds = np.mean((half[:, 0, 0] - half[:, 0, 1]) * (other[:, 0, 0] - other[:, 0, 1])) / 2
    assert between_seeds == pytest.approx(2.0**2, rel=0.15)
    assert between_bases == pytest.approx(2.0**2 + 3.0**2, rel=0.15)


def test_simulated_items_are_as_alike_as_asked():
    assumed = Assumed(base_sd=0, seed_sd=0, flips=1.0, items=0.3, base_items=0.2)
    found = simulate_differences(np.random.default_rng(0), 200, (2, 2, 500), 0.0, assumed) / 100
    # Signs of normals that correlate by r agree on average by 2 arcsin(r) / pi.
    across = np.mean(found[:, 0, 0] * found[:, 1, 1])
    within = np.mean(found[:, 0, 0] * found[:, 0, 1])
    assert across == pytest.approx(2 * np.arcsin(0.3) / np.pi, abs=0.01)
    assert within == pytest.approx(2 * np.arcsin(0.5) / np.pi, abs=0.01)


def test_equal_generators_give_the_same_experiments_at_other_sizes():
    smaller, larger = (
        simulate_differences(np.random.default_rng(0), 20, (3, 2, 50), size) for size in (0.0, 5.0)
    )
    assert (larger >= smaller).all() and (larger > smaller).any()


@pytest.fixture(scope="module")
def checked():
    return check_machinery().set_index("check")


def test_the_machinery_errs_and_finds_as_often_as_it_says(checked):
    assert list(checked.index) == ["null", "null, any size", "planted", "detectable at 80 %"]
    assert checked["ok"].all()
    assert (checked["family_wise"] <= 0.05).all()
    assert checked.loc["planted", "supported"] >= 0.8
    assert 0 < checked.loc["detectable at 80 %", "size"] <= checked.loc["planted", "size"]


def test_the_check_is_the_same_for_the_same_seed_and_another_for_another():
    few = {"repeats": 60, "shape": (3, 2, 40)}
    one, again, other = (check_machinery(**few, seed=seed) for seed in (0, 0, 1))
    assert one.equals(again) and not one.equals(other)


def test_a_design_that_finds_nothing_is_not_ok():
    check = check_machinery((3, 1, 20), planted=5.0, repeats=100).set_index("check")
    assert not check.loc[["planted", "detectable at 80 %"], "ok"].any()
    assert np.isnan(check.loc["detectable at 80 %", "size"])


def test_a_family_of_one_is_that_claim_alone():
    check = check_machinery((3, 2, 60), family=1, repeats=100).set_index("check")
    assert check.loc["planted", "family_wise"] == 0 and (check["claims"] == 1).all()
