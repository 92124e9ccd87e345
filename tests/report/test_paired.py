"""Outcomes that pair by item, over bases and seeds."""

from dataclasses import replace

import numpy as np
import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.report import paired
from tests.support.grids import scored
from tests.support.handmade import scale

CHOICE, GREEDY = ("telecom", "acc"), ("telecom", "exact_match")
MMLU, MATH = ("micro_mmlu", "acc"), ("micro_math", "exact_match")
BEFORE = {CHOICE: [0, 0, 1, 0], GREEDY: [0, 0, 0, 0], MMLU: [1, 1, 1, 0], MATH: [1, 0]}
AFTER = {CHOICE: [1, 0, 1, 1], GREEDY: [1, 0, 0, 0], MMLU: [1, 0, 1, 1], MATH: [0, 0]}


@pytest.fixture
def grid() -> paired.Grid:
    runs = [scored("base", BEFORE, base=base) for base in ("b0", "b1")]
    runs += [
        scored(
            "full_ft", AFTER if seed == 1 else BEFORE, base=base, seed=seed, record={"drift": 3.0}
        )
        for base in ("b0", "b1")
        for seed in (1, 2)
    ]
    ours = scale()
    ours = ours.model_copy(
        update={"bases": dict.fromkeys(("b0", "b1"), next(iter(ours.bases.values())))}
    )
    return paired.grids(runs, ours)["telecom", "full_ft"]


def test_gains_are_items_of_the_run_less_those_of_its_base(grid):
    (found,) = grid.outcomes(paired.GAIN)
    assert found.shape == (2, 2, 4)
    np.testing.assert_array_equal(found[:, 0], [[100, 0, 0, 100]] * 2)
    np.testing.assert_array_equal(found[:, 1], 0)  # as the base was
    np.testing.assert_array_equal(grid.outcomes(paired.EXACT)[0][0, 0], [100, 0, 0, 0])


def test_skill_lost_counts_above_chance_and_benchmarks_alike(grid):
    mmlu, math = grid.outcomes(paired.LOSS)
    np.testing.assert_allclose(mmlu[0, 0], np.array([0, 100, 0, -100]) / 0.75)
    np.testing.assert_allclose(math[0, 0], [100, 0])


def test_transitions_are_less_by_what_guessing_explains(grid):
    """mmlu: 3/4 right before and after, one of four options guessed: of the quarter that is wrong
    before, and of that after, (1 - 3/4)(1 - 3/4) / 3 change in each direction by guessing."""
    forgotten, learnt = grid.outcomes(paired.FORGOTTEN), grid.outcomes(paired.LEARNT)
    by_chance = 0.25 * 0.25 / 3
    assert forgotten[0][0, 0].mean() == pytest.approx(100 * (0.25 - by_chance))
    assert learnt[0][0, 0].mean() == pytest.approx(100 * (0.25 - by_chance))
    assert forgotten[1][0, 0].mean() == 50.0 and learnt[1][0, 0].mean() == 0.0  # nothing to guess


def test_transitions_of_guessers_are_nothing():
    """Two models that know nothing and guess among four options, as many items as make it sure."""
    dice = np.random.default_rng(0)
    guess = [{**BEFORE, MMLU: dice.random(40_000) < 0.25, MATH: [1, 0]} for _ in range(2)]
    runs = [scored("base", guess[0]), scored("full_ft", guess[1], seed=1)]
    ours = scale().model_copy(update={"bases": {"b0": next(iter(scale().bases.values()))}})
    grid = paired.grids(runs, ours)["telecom", "full_ft"]
    for kind in (paired.FORGOTTEN, paired.LEARNT):
        assert abs(grid.outcomes(kind)[0].mean()) < 0.7  # where 19 % of the items moved
    assert np.mean(guess[0][MMLU] & ~guess[1][MMLU]) > 0.18


def test_a_number_a_run_adds_no_variance_of_items(grid):
    (drift,) = grid.outcomes("drift")
    assert drift.shape == (2, 2, 2) and (drift == 3.0).all()


def test_a_measure_that_runs_lack_is_named(grid):
    with pytest.raises(UserError, match="full_ft: its runs have no outside_mass"):
        grid.outcomes("outside_mass")


def test_a_missing_run_is_named(grid):
    runs = [*grid.bases, *grid.runs[0], grid.runs[1][0]]
    with pytest.raises(UserError, match=r"b1/telecom/full_ft: seeds \[1\] of \[1, 2\]"):
        paired.grids(runs, grid.scale)


def test_items_that_do_not_pair_are_refused(grid):
    other = scored("full_ft", {**AFTER, CHOICE: [1, 0]}, base="b1", seed=1)
    broken = replace(grid, runs=[grid.runs[0], [other, grid.runs[1][1]]])
    with pytest.raises(UserError, match="2 items of telecom do not pair"):
        broken.outcomes(paired.GAIN)
