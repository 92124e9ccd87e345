"""When results agree, against a search through all orders of rows and columns."""

import math
import random
from itertools import permutations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrmoclip.data import sql_results
from lrmoclip.data.sql_results import difference, matched

examples = settings(max_examples=300, deadline=None, derandomize=True)
CELLS = [
    None, "a", b"a", 0, 1, 1.0, 0.0, 1e-13, -1e-13, math.inf, -math.inf, 9876543211, 9876543212,
    *(0.1234567895 * (1 + steps * 0.6e-9) for steps in range(-2, 3)),
    *(9876543211.5 * (1 + steps * 0.6e-9) for steps in range(-1, 2)),
]  # fmt: skip


def same(one: object, other: object) -> bool:
    numbers = {type(one), type(other)}
    if numbers in ({float}, {int, float}) and math.isfinite(one) and math.isfinite(other):
        return abs(one - other) <= max(1e-9 * max(abs(one), abs(other)), 1e-12)
    return one == other


def side_by_side(rows: list[tuple], expected: list[tuple]) -> bool:
    return all(all(map(same, *pair)) for pair in zip(rows, expected, strict=True))


def in_some_order_of_rows(rows: list[tuple], expected: list[tuple]) -> bool:
    return any(side_by_side(list(order), expected) for order in permutations(rows))


def agree(rows: list[tuple], expected: list[tuple], ordered: bool) -> bool:
    by_rows = side_by_side if ordered else in_some_order_of_rows
    columns = permutations(zip(*rows, strict=True))
    return any(by_rows(list(zip(*order, strict=True)), expected) for order in columns)


@st.composite
def results(draw, rows: int = 4, columns: int = 3):
    """Two results of one size; the second is the first in another order, with some cells changed,
    so that near ones are frequent."""
    width, length = draw(st.integers(1, columns)), draw(st.integers(1, rows))
    few = draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4))
    row = st.tuples(*[st.sampled_from(few)] * width)
    first = draw(st.lists(row, min_size=length, max_size=length))
    order, places = draw(st.permutations(first)), draw(st.permutations(range(width)))
    second = [
        tuple(draw(st.sampled_from([c for c in CELLS if same(c, row[p])])) for p in places)
        for row in order
    ]
    if draw(st.booleans()):
        second[0] = draw(row)
    return first, second


@examples
@given(results(), st.booleans())
@example(([(0.0,), (1e-12,)], [(0.0,), (-1e-12,)]), False)  # equal rows are not each other's
def test_results_agree_when_some_order_of_rows_and_columns_does(pair, ordered):
    rows, expected = pair
    assert (not difference(rows, expected, ordered)) == agree(rows, expected, ordered)
    assert (not difference(expected, rows, ordered)) == agree(rows, expected, ordered)


@examples
@given(results(rows=5))
def test_rows_are_matched_when_some_order_of_them_agrees(pair):
    assert matched(*pair) == in_some_order_of_rows(*pair)


@examples
@given(results())
def test_the_reason_says_whether_only_the_order_differs(pair):
    rows, expected = pair
    reason = difference(rows, expected, ordered=True)
    if reason:
        only_the_order = not difference(rows, expected, ordered=False)
        assert reason == ("other order" if only_the_order else "other rows")


A, B, C = (0.5 * (1 + steps * 0.6e-9) for steps in range(3))  # A ~ B ~ C, but not A ~ C


@pytest.mark.parametrize(
    ("ones", "others", "possible"),
    [
        ([(A, C), (B, A)], [(A, A), (B, C)], True),
        ([(A, A), (B, B), (C, C)], [(A, C), (B, B), (C, A)], False),
        ([(A,), (B,), (B,)], [(C,), (B,), (A,)], True),
        ([(A,), (A,), (B,)], [(C,), (C,), (B,)], False),
    ],
)
def test_matching_is_not_sorting(ones, others, possible):
    for order in permutations(others):
        assert matched(ones, list(order)) == possible


@pytest.mark.parametrize("edge", [0.1234567895, 1234567.895, -1.234567895e30])
def test_rows_equal_up_to_rounding_agree_in_any_order(edge):
    low, high = edge * (1 - 1e-12), edge * (1 + 1e-12)  # to 9 digits they round apart
    rows = [(low, "b"), (high, "a"), (low, "c")]
    expected = [(high, "b"), (low, "a"), (high, "c")]
    for order in permutations(expected):
        assert difference(rows, list(order), ordered=False) == ""


def test_many_rows_with_noise_agree_in_any_order():
    dice = random.Random(0)
    rows = [(dice.random(), n % 7, dice.random()) for n in range(1_500)]
    noisy = [(c * (1 + 1e-13), b, a * (1 - 1e-13)) for a, b, c in dice.sample(rows, len(rows))]
    assert difference(noisy, rows, ordered=False) == ""
    noisy[0] = (*noisy[0][:2], noisy[1][2])
    assert difference(noisy, rows, ordered=False) == "other rows"


def test_a_search_for_an_order_of_columns_ends(monkeypatch):
    # Of six bits, those with an even sum and those with an odd one: any five columns agree.
    bits = list(product((0, 1), repeat=6))
    even, odd = ([row for row in bits if sum(row) % 2 == parity] for parity in (0, 1))
    tried = []
    monkeypatch.setattr(sql_results, "matched", lambda *pair: tried.append(0) or matched(*pair))
    assert difference(even, odd, ordered=False) == "other rows"
    assert len(tried) == 1 + 6 * 6 + 1_000


def test_equal_columns_are_no_different_orders():
    expected = [(n, *[0] * 30, -n) for n in range(9)]
    rows = [(0,) * 15 + (-n, n) + (0,) * 15 for n in range(9)]
    assert difference(rows, expected, ordered=False) == ""
    assert difference([(*r[:-1], 1) for r in rows], expected, ordered=False) == "other rows"
