"""The at-chance rule against binomial tails summed here, and what it makes of a manifest."""

from fractions import Fraction
from math import comb

import pytest

from lrmoclip.config.parts import Benchmark
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.evaluate import screening
from tests.support.made import as_data

GENERAL = {
    "easy": Benchmark(task="easy_items", kind="choice", metric="acc", chance=0.25),
    "hard": Benchmark(task="hard_items", kind="choice", metric="acc", chance=0.25),
    "text": Benchmark(task="text_items", kind="harness", metric="word_perplexity", averaged=False),
}


def row(task: str, value: float, n: int, metric: str = "acc") -> dict:
    return {"benchmark": task, "split": "test", "metric": metric, "value": value, "n": n}


def tail(right: int, n: int, chance: Fraction) -> float:
    """P(X >= right) of a binomial, exactly."""
    return float(sum(comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1)))


def test_above_chance_is_an_exact_one_sided_binomial_test_at_5_percent():
    quarter, verdicts = Fraction(1, 4), []
    for right in range(21):
        found = screening.screen([row("easy_items", right / 20, 20)], {"easy": GENERAL["easy"]}, {})
        assert found["easy"]["p"] == pytest.approx(tail(right, 20, quarter))
        assert found["easy"]["above"] == (tail(right, 20, quarter) < 0.05)
        verdicts.append(found["easy"]["above"])
    assert verdicts.index(True) == 9  # of 20, where 5 are expected
    assert found["easy"] == {"value": 1.0, "n": 20, "chance": 0.25, "p": 0.25**20, "above": True}


def test_where_nothing_is_right_by_chance_one_right_answer_is_enough():
    general = {"math": Benchmark(task="math", kind="generate", metric="exact_match", chance=0.0)}
    for right, above in ((0, False), (1, True)):
        found = screening.screen([row("math", right / 50, 50, "exact_match")], general, {})
        assert found["math"]["above"] is above


def test_the_mean_chance_of_unequal_items_is_careful():
    """10 items with 2 options and 10 with 10: the exact tail is below the binomial's at 0.3."""
    exact = sum(
        tail_of(k, 10, Fraction(1, 2)) * tail(max(0, 12 - k), 10, Fraction(1, 10))
        for k in range(11)
    )
    found = screening.screen(
        [row("mixed", 12 / 20, 20)],
        {"mixed": Benchmark(task="mixed", kind="choice", metric="acc", chance=0.3)},
        {},
    )
    assert exact < found["mixed"]["p"]


def tail_of(right: int, n: int, chance: Fraction) -> float:
    return tail(right, n, chance) - tail(right + 1, n, chance)


def test_chance_comes_from_the_manifest_where_the_benchmark_has_none():
    general = {"bbh": Benchmark(task="bbh", kind="harness", metric="acc")}
    found = screening.screen([row("bbh", 0.5, 100)], general, {"chance": {"bbh": 0.45}})
    assert found["bbh"]["chance"] == 0.45 and not found["bbh"]["above"]
    with pytest.raises(UserError, match=r"general\.bbh: no chance level"):
        screening.screen([row("bbh", 0.5, 100)], general, {})


def test_a_perplexity_is_not_tested_and_missing_data_are_said():
    facts = {"missing": {"hard": "its archive is closed"}}
    found = screening.screen([row("easy_items", 1.0, 20)], GENERAL, facts)
    assert list(found) == ["easy", "hard"]
    assert found["hard"] == {"missing": "its archive is closed"}


def test_a_score_that_is_not_there_is_named():
    with pytest.raises(UserError, match="hard_items: no metric acc"):
        screening.screen([row("easy_items", 1.0, 20)], GENERAL, {})


def test_methods_are_scored_on_what_is_above_chance_and_on_perplexities():
    screened = {"easy": {"above": True}, "hard": {"above": False}}
    assert list(screening.worth_scoring(GENERAL, screened)) == ["easy", "text"]
    screened = {"easy": {"missing": "why"}, "hard": {"above": True}, "text": {"missing": "why"}}
    assert list(screening.worth_scoring(GENERAL, screened)) == ["hard"]


def test_only_splits_that_the_data_have_are_scored(tmp_path):
    for name in ("easy_items/test", "easy_items/validation", "text_items/test"):
        files.write_text(tmp_path / f"{name}.jsonl", "{}")
    data = as_data(tmp_path, missing={"hard": "gated"})

    assert list(screening.with_data(GENERAL, data, "test")) == ["easy", "text"]
    assert list(screening.with_data(GENERAL, data, "validation")) == ["easy"]


def test_a_benchmark_of_which_nothing_is_there_and_nothing_said_is_a_mistake(tmp_path):
    for task in ("easy_items", "text_items"):
        files.write_text(tmp_path / task / "test.jsonl", "{}")

    with pytest.raises(UserError, match=r"no data of hard_items \(general\.hard\)"):
        screening.with_data(GENERAL, as_data(tmp_path), "test")
