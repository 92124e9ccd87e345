"""Intervals over seeds and items, against arithmetic by hand, a simulation and a bootstrap."""

import numpy as np
import pytest
import scipy.stats

from lrmoclip.report.statistics import mean_interval, over_bases


def simulate(rng, seeds=4, items=60, seed_sd=0.05, item_sd=0.4, noise_sd=0.2, benchmarks=1):
    """(S, n) matrices with known components of variance around 0.5; seeds move all benchmarks."""
    seed = rng.normal(0, seed_sd, (seeds, 1))
    return [
        0.5 + seed + rng.normal(0, item_sd, (1, items)) + rng.normal(0, noise_sd, (seeds, items))
        for _ in range(benchmarks)
    ]


def pigeonhole_standard_error(matrices, rng, draws=2_000):
    """Owen 2007: seeds and items drawn anew, each with replacement; seeds for all benchmarks."""
    means = []
    seeds = len(matrices[0])
    for _ in range(draws):
        rows = rng.integers(seeds, size=seeds)
        columns = [rng.integers(m.shape[1], size=m.shape[1]) for m in matrices]
        means.append(
            np.mean([m[rows][:, c].mean() for m, c in zip(matrices, columns, strict=True)])
        )
    return np.std(means)


def test_one_benchmark_by_hand():
    # Rows are seeds:  2 4 6  | 4    Row means 4 and 8, item means 4, 5, 9, mean 6.
    #                  6 6 12 | 8
    # MS_seed = 3 (4 + 4) / 1 = 24
    # MS_item = 2 (4 + 1 + 9) / 2 = 14
    # Residuals of seed 1: 2-4-4+6 = 0, 4-5-4+6 = 1, 6-9-4+6 = -1; of seed 2 the same, negated.
    # MS_residual = (0 + 1 + 1 + 0 + 1 + 1) / (1 * 2) = 2
    # Var = (24 + 14 - 2) / (2 * 3) = 6
    # df = 36^2 / (24^2 / 1 + 14^2 / 2 + 2^2 / 2) = 1296 / 676
    mean, half_width = mean_interval([np.array([[2, 4, 6], [6, 6, 12]])])
    assert mean == 6.0
    expected = np.sqrt(6) * scipy.stats.t.ppf(0.975, 1296 / 676)
    assert half_width == pytest.approx(expected, rel=1e-12)


def test_two_benchmarks_by_hand():
    # The one above, 3 lower for the second seed (which changes neither MS_item nor MS_residual):
    # row means 4 and 5. Another: 0 2 | 1   Item means 0.5 and 3.5, mean 2.
    #                             1 5 | 3
    # Macro means of the seeds: (4 + 1) / 2 = 2.5 and (5 + 3) / 2 = 4: mean 3.25, variance 1.125.
    # Seeds' part: 1.125 / 2 = 0.5625
    # Items' part, first: (14 - 2) / (2^2 * 2 * 3) = 0.5
    # Second: MS_item = 2 (2.25 + 2.25) / 1 = 9; residuals +-0.5, MS_residual = 4 * 0.25 / 1 = 1:
    # (9 - 1) / (2^2 * 2 * 2) = 0.5
    # df from the terms 0.5625 (1), 14/24 (2), 2/24 (2), 9/16 (1), 1/16 (1)
    variance = 0.5625 + 0.5 + 0.5
    df = variance**2 / (
        0.5625**2 + (14 / 24) ** 2 / 2 + (2 / 24) ** 2 / 2 + (9 / 16) ** 2 + (1 / 16) ** 2
    )
    mean, half_width = mean_interval([np.array([[2, 4, 6], [3, 3, 9]]), np.array([[0, 2], [1, 5]])])
    assert mean == 3.25
    expected = np.sqrt(variance) * scipy.stats.t.ppf(0.975, df)
    assert half_width == pytest.approx(expected, rel=1e-12)


def test_seeds_whose_means_agree_by_chance_leave_the_noise():
    # 1 1 1 0 and 1 0 1 1: both seeds score 3/4 and MS_seed = 0. Item means 1, 0.5, 1, 0.5:
    # MS_item = 2 * 4 * 0.0625 / 3 = 1/6. Residuals 0, 0.5, 0, -0.5 and negated: MS_residual = 1/3.
    # Neither component is above zero, so Var = (1/3) / (2 * 4), with 3 degrees of freedom.
    mean, half_width = mean_interval([np.array([[1, 1, 1, 0], [1, 0, 1, 1]])])
    assert mean == 0.75
    assert half_width == pytest.approx(np.sqrt(1 / 24) * scipy.stats.t.ppf(0.975, 3), rel=1e-12)


def test_one_seed_gives_the_t_interval_over_items():
    values = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    expected = scipy.stats.sem(values[0]) * scipy.stats.t.ppf(0.975, 4)
    assert mean_interval([values]).half_width == pytest.approx(expected, rel=1e-12)


def test_seeds_that_agree_on_every_item_leave_the_items():
    row = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    one, many = mean_interval([row]), mean_interval([np.repeat(row, 6, axis=0)])
    assert many == pytest.approx(one, rel=1e-12)


def test_items_that_agree_leave_the_t_interval_over_seeds():
    per_seed = np.array([0.3, 0.5, 0.6])
    expected = scipy.stats.sem(per_seed) * scipy.stats.t.ppf(0.975, 2)
    interval = mean_interval([np.repeat(per_seed[:, None], 40, axis=1)])
    assert interval.half_width == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 5), (3, 5)])
def test_constant_outcomes_have_no_width(shape):
    assert mean_interval([np.ones(shape), np.ones(shape)]) == (1.0, 0.0)


def test_a_single_item_has_an_unknown_width():
    mean, half_width = mean_interval([np.array([[1.0], [0.0]])])
    assert mean == 0.5 and np.isnan(half_width)


def test_a_higher_level_is_wider():
    matrices = simulate(np.random.default_rng(0))
    assert mean_interval(matrices, level=0.99).half_width > mean_interval(matrices).half_width


@pytest.mark.parametrize(
    "components",
    [
        {},
        {"seed_sd": 0.2},
        {"seed_sd": 0.0, "seeds": 3},
        {"benchmarks": 4, "seeds": 3},
        {"benchmarks": 4, "seed_sd": 0.0},
        {"seeds": 1, "seed_sd": 0.0},
    ],
    ids=str,
)
def test_95_percent_intervals_cover_the_truth_about_95_percent_of_the_time(components):
    rng = np.random.default_rng(7)
    intervals = [mean_interval(simulate(rng, **components)) for _ in range(1_000)]
    covered = np.mean([abs(mean - 0.5) <= half_width for mean, half_width in intervals])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("benchmarks", [1, 3])
def test_the_pigeonhole_bootstrap_gives_the_same_standard_error(benchmarks):
    rng = np.random.default_rng(3)
    matrices = simulate(rng, seeds=20, items=40, seed_sd=0.1, benchmarks=benchmarks)
    # Without t the half-width is the standard error times the normal quantile; df are many here.
    one_sigma = mean_interval(matrices, level=scipy.stats.norm.cdf(1) * 2 - 1).half_width
    assert one_sigma == pytest.approx(pigeonhole_standard_error(matrices, rng), rel=0.1)


@pytest.mark.parametrize(
    "outcomes",
    [[], [np.ones(3)], [np.ones((2, 3)), np.ones((3, 3))], [np.array([[1.0, np.nan]])]],
    ids=["none", "not a matrix", "ragged seeds", "NaN"],
)
def test_outcomes_that_make_no_sense_are_refused(outcomes):
    with pytest.raises(ValueError, match="outcomes"):
        mean_interval(outcomes)


def test_the_interval_is_that_of_one_base_seen_alone():
    matrices = simulate(np.random.default_rng(5), benchmarks=3)
    found = over_bases([matrix[None] for matrix in matrices])
    assert (found.mean, found.half_width) == pytest.approx(mean_interval(matrices), rel=1e-9)
    assert not found.other_bases
