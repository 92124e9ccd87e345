"""Subsets by seed, spread over strata as evenly as their sizes allow."""

from collections.abc import Callable, Hashable, Sequence
from random import Random

Key = Callable[[dict], Hashable]


def draw(items: Sequence[dict], size: int, dice: Random, *strata: Key) -> list[int]:
    """Indices of `size` items, in order.

    strata: what to spread over, the coarsest first, such as task and level. The parts of two
    strata differ by at most one, unless the smaller is used up; within a stratum this holds for
    the next finer ones. A larger draw from the same dice contains the smaller.
    """
    return sorted(_in_turns(items, list(range(len(items))), dice, strata)[:size])


def _in_turns(
    items: Sequence[dict], chosen: list[int], dice: Random, strata: Sequence[Key]
) -> list[int]:
    """`chosen`, strata taking turns: the first of each, then the second of each, and so on."""
    if not strata:
        return dice.sample(chosen, len(chosen))
    parts: dict[Hashable, list[int]] = {}
    for index in chosen:
        parts.setdefault(strata[0](items[index]), []).append(index)
    turns = [
        (turn, dice.random(), index)
        for part in parts.values()
        for turn, index in enumerate(_in_turns(items, part, dice, strata[1:]))
    ]
    return [index for *_, index in sorted(turns)]
