"""Points of general skill lost, against a sum made by hand."""

import pytest

from lrmoclip.config.parts import Benchmark
from lrmoclip.evaluate import skill

GENERAL = {
    "facts": Benchmark(task="f", kind="choice", metric="acc", exact="exact_match", chance=0.25),
    "sums": Benchmark(task="s", kind="generate", metric="exact_match", chance=0.0),
}
CHANCES = {"facts": 0.25, "sums": 0.0}


def rows(acc: float, exact: float, sums: float) -> list[dict]:
    values = {("f", "acc"): acc, ("f", "exact_match"): exact, ("s", "exact_match"): sums}
    return [{"benchmark": b, "metric": m, "value": v} for (b, m), v in values.items()]


def test_choice_counts_above_chance_and_the_greedy_answer_beside_it():
    before, after = rows(1.0, 0.9, 0.8), rows(0.7, 0.5, 0.6)

    facts = ((1.0 - 0.7) / 0.75 + (0.9 - 0.5)) / 2
    assert skill.lost(before, after, GENERAL, CHANCES) == pytest.approx(100 * (facts + 0.2) / 2)


def test_from_perfect_to_chance_and_silence_is_all_of_it():
    assert skill.lost(rows(1, 1, 1), rows(0.25, 0, 0), GENERAL, CHANCES) == pytest.approx(100)


def test_no_benchmark_can_weigh_more_than_its_share():
    assert skill.lost(rows(1, 1, 1), rows(1, 1, 0), GENERAL, CHANCES) == pytest.approx(50)
    assert skill.lost(rows(1, 1, 1), rows(0.25, 0, 1), GENERAL, CHANCES) == pytest.approx(50)


def test_nothing_changed_is_nothing_lost():
    assert skill.lost(rows(0.5, 0.3, 0.1), rows(0.5, 0.3, 0.1), GENERAL, CHANCES) == 0
