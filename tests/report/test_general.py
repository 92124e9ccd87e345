"""Which general benchmarks count, and general.csv, against sums that can be done by hand."""

from math import comb

import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core.errors import UserError
from lrmoclip.evaluate.screening import above_chance
from lrmoclip.report.counted import (
    AT_CHANCE,
    GENERAL,
    counted,
    general,
    resolution,
    wilson,
)
from lrmoclip.report.scored import load
from tests.support import handmade
from tests.support.handmade import BASE, PERPLEXITY, scale, write_run


@given(n=st.integers(1, 60), chance=st.sampled_from([0.0, 0.1, 0.25, 0.5]), data=st.data())
def test_p_is_the_upper_tail_of_the_binomial(n, chance, data):
    right = data.draw(st.integers(0, n))
    tail = sum(comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(right, n + 1))
    assert above_chance(right / n, n, chance) == pytest.approx(tail, abs=1e-12)


def test_the_resolution_is_the_half_width_at_one_half():
    z = scipy.stats.norm.ppf(0.975)
    for items in (1, 200, 300):
        assert resolution(items) == pytest.approx(100 * z * (0.5 * 0.5 / items) ** 0.5)
    # A paired difference of which a quarter of the items change, as often up as down.
    changes = [1] * 25 + [-1] * 25 + [0] * 150
    width = 100 * z * pd.Series(changes).std(ddof=0) / 200**0.5
    assert resolution(200) == pytest.approx(width)


@pytest.mark.parametrize("right", [0, 3, 10])
def test_the_base_has_wilsons_interval(right):
    n, z = 10, scipy.stats.norm.ppf(0.975)
    share = right / n
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    assert wilson(share, n) == pytest.approx(100 * half)


def test_general_csv_has_a_row_a_role_with_what_it_counts_for(tmp_path):
    screening = {
        "mmlu": {"value": 0.75, "n": 4, "chance": 0.5, "p": 5 / 16, "above": False},
        "math": {"value": 0.5, "n": 2, "chance": 0.0, "p": 0.0, "above": True},
        "gpqa": {"missing": "gated: accept its terms"},
    }
    path = write_run(tmp_path, "base", 0, BASE, screening=screening, perplexity=24.5)
    gpqa = {"task": "gpqa", "kind": "choice", "metric": "acc", "chance": 0.25}
    wider = scale({**handmade.GENERAL, "gpqa": gpqa, "wikitext": PERPLEXITY})

    table = general(load([path], wider), wider)

    assert list(table.columns) == GENERAL
    table = table.set_index("role")
    assert list(table.index) == ["mmlu", "math", "gpqa", "wikitext"]
    assert list(table["note"]) == [
        AT_CHANCE, "", "no data: gated: accept its terms", "perplexity, not averaged",
    ]  # fmt: skip
    assert list(table.loc["mmlu", ["tasks", "n", "chance", "base_score", "p", "above_chance"]]) == [
        "micro_mmlu", 4, 50.0, 75.0, 5 / 16, False,
    ]  # fmt: skip
    assert table.loc["mmlu", "resolution"] == resolution(4)
    assert table.loc["wikitext", "base_score"] == 24.5 and table.loc["wikitext", "n"] == 2
    assert table.loc["wikitext", ["chance", "base_ci", "p", "resolution"]].isna().all()
    assert table.loc["gpqa"].drop(["scale", "base", "tasks", "metric", "note"]).isna().all()


def test_a_base_has_one_row_a_role_though_it_is_scored_with_each_domain(tmp_path):
    paths = [write_run(tmp_path, "base", 0, BASE, domain=d) for d in ("telecom", "nl2sql")]
    both = scale(nl2sql=handmade.TELECOM)
    assert list(general(load(paths, both), both)["role"]) == ["mmlu", "math"]


def test_a_base_above_chance_counts(tmp_path):
    [base] = load([write_run(tmp_path, "base", 0, BASE)], scale())
    found = counted(base, scale())
    assert found["mmlu"].p == pytest.approx(4 * 0.2**3 * 0.8 + 0.2**4)
    assert found["mmlu"].counts and found["math"].counts


def test_a_role_that_the_screening_leaves_out_is_named(tmp_path):
    screening = {"mmlu": {"missing": "why"}}
    [base] = load([write_run(tmp_path, "base", 0, BASE, screening=screening)], scale())
    with pytest.raises(UserError, match="no screening of math"):
        counted(base, scale())
