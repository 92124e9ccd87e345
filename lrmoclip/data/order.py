"""Which records a step takes, and how they are cut into forward passes: shuffled passes over the
data, records of similar length together where asked, and each process's share."""

from collections.abc import Iterator
from itertools import chain, islice

import torch

WINDOW = 16  # batches whose records are sorted by length together: enough to save most padding


def indices(records: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of record indices: shuffled passes, joined without a gap."""
    dice = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < batch_size:
            waiting += torch.randperm(records, generator=dice).tolist()
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def grouped(
    order: Iterator[list[int]], lengths: list[int], batches: int, seed: int
) -> Iterator[list[int]]:
    """The first `batches` batches of `order`, of which each `WINDOW` are cut anew by length.

    Batches hold records of similar length and come in shuffled order, so that no stretch of the
    training is all short or all long.
    """
    dice = torch.Generator().manual_seed(seed)
    while batches > 0:
        window = list(islice(order, min(WINDOW, batches)))
        batches -= len(window)
        size = len(window[0])
        by_length = sorted(chain(*window), key=lengths.__getitem__)
        for place in torch.randperm(len(window), generator=dice).tolist():
            yield by_length[place * size : (place + 1) * size]


def portions(
    chosen: list[int], lengths: list[int], most: int | None, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """The forward passes of one process over its share of `chosen`, of at most `most` records each
    (None: all of them at once).

    Every process has as many, the last of which may be empty, and similar lengths go together.
    One process that takes all at once takes them as they come.
    """
    if ranks == 1 and (most is None or len(chosen) <= most):
        return [chosen]
    by_length = sorted(chosen, key=lengths.__getitem__)
    share = -(-len(chosen) // ranks)
    most = min(most or share, share)
    mine = by_length[rank::ranks]
    return [mine[start : start + most] for start in range(0, share, most)]
