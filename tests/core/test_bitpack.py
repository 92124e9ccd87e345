"""Bit-packing: what is read is what was written, in the fewest bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.core.bitpack import pack, take, unpack, width_of

examples = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def columns(draw):
    width = draw(st.integers(1, 56))
    value = st.integers(0, 2**width - 1)
    return draw(st.lists(value, max_size=40)), width


@examples
@given(columns())
def test_what_is_unpacked_is_what_was_packed(column):
    values, width = column

    packed = pack(torch.tensor(values, dtype=torch.int64), width)

    assert packed.dtype == torch.uint8 and packed.is_contiguous()
    assert packed.numel() == -(-len(values) // 8) * width
    assert unpack(packed)[: len(values)].tolist() == values


@examples
@given(columns())
def test_packed_bytes_are_one_little_endian_number(column):
    values, width = column

    packed = pack(torch.tensor(values, dtype=torch.int64), width)

    number = sum(value << (i * width) for i, value in enumerate(values))
    assert bytes(packed.flatten().tolist()) == number.to_bytes(packed.numel(), "little")


@examples
@given(columns(), st.data())
def test_parts_are_read_in_any_order(column, data):
    values, width = column
    cut = st.integers(0, len(values))
    parts = [sorted(p) for p in data.draw(st.lists(st.tuples(cut, cut), max_size=6))]
    starts = torch.tensor([a for a, _ in parts], dtype=torch.int64)
    sizes = torch.tensor([b - a for a, b in parts], dtype=torch.int64)

    got = take(pack(torch.tensor(values, dtype=torch.int64), width), starts, sizes)

    assert got.tolist() == [value for a, b in parts for value in values[a:b]]


@pytest.mark.parametrize(("largest", "width"), [(0, 1), (1, 1), (2, 2), (151_935, 18), (2**18, 19)])
def test_a_width_is_the_fewest_bits(largest, width):
    assert width_of(largest) == width


@pytest.mark.parametrize(
    ("values", "width", "words"),
    [([4], 2, "values"), ([-1], 2, "values"), ([0], 0, "width"), ([0], 57, "width")],
)
def test_what_does_not_fit_is_refused(values, width, words):
    with pytest.raises(ValueError, match=words):
        pack(torch.tensor(values), width)
