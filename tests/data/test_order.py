"""Which records a step takes: each as often as others, similar lengths together, shared out."""

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.data.order import WINDOW, grouped, indices, portions


def test_every_record_comes_once_a_pass():
    order = indices(10, 4, seed=0)
    taken = [i for _ in range(5) for i in next(order)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))


@pytest.mark.parametrize("batches", [1, WINDOW, WINDOW + 3])
def test_grouping_takes_the_same_records_in_batches_of_the_same_size(batches):
    lengths = [(7 * i) % 50 for i in range(200)]
    plain = list(islice(indices(200, 8, seed=1), batches))

    found = list(grouped(indices(200, 8, seed=1), lengths, batches, seed=1))

    assert [len(batch) for batch in found] == [8] * batches
    assert sorted(chain(*found)) == sorted(chain(*plain))


def test_grouped_batches_are_alike_in_length_and_come_in_no_order_of_it():
    lengths = [(7 * i) % 50 for i in range(200)]
    found = list(grouped(indices(200, 8, seed=1), lengths, WINDOW, seed=1))
    spreads = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found]
    longest = [max(lengths[i] for i in b) for b in found]

    assert max(spreads) < 10
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_grouping_follows_from_the_seed():
    def order(seed: int) -> list[list[int]]:
        return list(grouped(indices(50, 4, seed=1), list(range(50)), 20, seed))

    assert order(1) == order(1) != order(2)


@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=40),
    st.none() | st.integers(1, 9),
    st.integers(1, 6),
)
def test_the_processes_share_a_step_and_pass_forward_equally_often(lengths, most, ranks):
    chosen = list(range(len(lengths)))
    shares = [portions(chosen, lengths, most, rank, ranks) for rank in range(ranks)]

    assert sorted(i for share in shares for portion in share for i in portion) == chosen
    assert len({len(share) for share in shares}) == 1
    if most:
        assert all(len(portion) <= most for share in shares for portion in share)
    else:
        assert len(shares[0]) == 1


def test_all_at_once_they_come_as_drawn():
    assert portions([5, 3, 4], [9, 9, 9, 3, 2, 1], None) == [[5, 3, 4]]


def test_one_pass_holds_similar_lengths():
    assert portions([0, 1, 2, 3], [9, 1, 8, 2], 2) == [[1, 3], [2, 0]]
