"""Bit-packing of non-negative integers: eight values of `width` bits fill `width` bytes, one group.

Value i of a group takes the bits [i width, (i + 1) width) of its bytes read as one little-endian
number, so that any group can be read alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.candidates import ranges

GROUP = 8  # values
WORD = 8  # bytes of an int64
MAX_WIDTH = 56  # a value and the seven bits it may be shifted by fit into a word


def width_of(largest: int) -> int:
    """The fewest bits, at least one, that hold 0 to `largest`."""
    return max(1, int(largest).bit_length())


def pack(values: Tensor, width: int) -> Tensor:
    """(n,) int64 -> (ceil(n / 8), width) uint8; the last group is filled up with zeros.

    ValueError: a width outside [1, 56] or a value outside [0, 2^width).
    """
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"width must lie in [1, {MAX_WIDTH}], got {width}")
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < 2**width:
        raise ValueError(f"values must lie in [0, 2^{width})")
    values = F.pad(values, (0, -len(values) % GROUP)).view(-1, GROUP).T.contiguous()
    packed = values.new_zeros(width, values.shape[1])
    overlaps = [  # (value of a group, byte it shares bits with, shift to the left)
        (i, byte, i * width - 8 * byte)
        for i in range(GROUP)
        for byte in range(i * width // 8, -(-(i + 1) * width // 8))
    ]
    for i, byte, shift in overlaps:
        packed[byte] |= values[i] << shift if shift >= 0 else values[i] >> -shift
    return (packed & 0xFF).T.to(torch.uint8, memory_format=torch.contiguous_format)


def unpack(packed: Tensor) -> Tensor:
    """(groups, width) uint8 -> (8 groups,) int64, the zeros of the last group included."""
    return take(packed, torch.zeros(1, dtype=torch.int64), torch.tensor([GROUP * len(packed)]))


def take(packed: Tensor, starts: Tensor, sizes: Tensor) -> Tensor:
    """(sum of sizes,) int64: the values [start, start + size) of each part, one after the other.

    packed (groups, width) uint8, contiguous; starts, sizes (m,) int64. Touches the bytes of these
    values and no others, so that `packed` may be a mapped file.
    """
    width, flat = packed.shape[1], packed.flatten()
    if len(flat) < WORD:
        flat = F.pad(flat, (0, WORD - len(flat)))
    bit = ranges(starts, sizes) * width
    byte = (bit >> 3).clamp(max=len(flat) - WORD)
    # The eight bytes from there on as one number, on a little-endian machine.
    words = flat.unfold(0, WORD, 1)[byte].view(torch.int64).squeeze(1)
    return words >> (bit - 8 * byte) & (1 << width) - 1
