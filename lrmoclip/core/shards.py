"""One shard of a candidate store: the sets of some whole records as bit-packed columns, one file.

A probability is kept to the bit, since the prefix sums that a narrower setting reads off decide
by the bit: its code is how many float32 lie between it and 1. The code of one below 2**-126, which
no sum of a row can feel, goes on with a fixed-point log-probability, on a grid of 1/256 nat."""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrmoclip.core.arguments import check_vector
from lrmoclip.core.bitpack import pack, take, unpack, width_of
from lrmoclip.core.candidates import Candidates, offsets_of, ranges

ONE = 127 << 23  # the bits of 1.0 as an integer; those of positive floats order as the floats do
SMALLEST = 126 << 23  # code of 2**-126, the smallest float32 of full precision
_LOG_SMALLEST = -126 * math.log(2)
GRID = 256  # steps a nat below that
LARGEST = 2**30 - 1  # code of what is 65,000 nats below certainty, and less
# By how much a mass or a probability may miss. Log-probabilities made from float32 logits of up to
# 128 are rounded by 2**-18 or so, and by as much, relatively, what is summed of them.
ROUNDING = 2**-16
# A name, and what is stored: one value a record, a position or an entry.
COLUMNS = ("positions", "entries", "sizes", "gold", "ids", "codes", "log_z", "log_outside")


def check(
    sets: Candidates,
    targets: Tensor,
    records: Tensor,
    vocabulary: int,
    coverage: float,
    k_min: int,
    k_max: int,
) -> None:
    """ValueError where these, as for `write`, do not fit one another or are not what this setting
    selects."""
    check_vector("targets", targets, len(sets), torch.int64)
    if (records < 0).any() or int(records.sum()) != len(sets):
        raise ValueError(f"records must be the positions of each record, {len(sets)} in all")
    sets.check(vocabulary)
    _check_rows(sets, targets, vocabulary)
    _check_sizes(sets, coverage, min(k_min, vocabulary), min(k_max, vocabulary))


def _check_rows(sets: Candidates, targets: Tensor, vocabulary: int) -> None:
    """Distinct tokens by falling probability, the target among them, last where it was forced."""
    if not (sets.logp.isfinite() & (sets.logp <= ROUNDING)).all():
        raise ValueError("log-probabilities must be finite and at most 0")
    if not (sets.prob - sets.logp.exp()).abs().le(ROUNDING).all():
        raise ValueError("prob must be exp(logp)")
    rows, (gold, count) = sets.rows, _golds(sets, targets)
    if not torch.equal(count, (sets.sizes > 0).long()):
        raise ValueError("a row does not hold its target exactly once: are these its targets?")
    last = gold == sets.offsets[1:][rows[gold]] - 1
    if not last[sets.gold_forced[rows[gold]]].all() or sets.gold_forced[sets.sizes == 0].any():
        raise ValueError("a target that was forced in must stand last in its row")
    falls = sets.prob[1:] <= sets.prob[:-1] * (1 + ROUNDING)
    if not (falls | (rows.diff() > 0)).all():
        raise ValueError("the tokens of a row must stand by falling probability")
    if len((rows * vocabulary + sets.ids).unique()) < len(rows):
        raise ValueError("a row holds a token twice")


def _check_sizes(sets: Candidates, coverage: float, k_min: int, k_max: int) -> None:
    """The base's own part of each row is the shortest that covers, or bounded by k_min, k_max."""
    own, rows = sets.sizes - sets.gold_forced.long(), sets.rows  # (N,), (nnz,)
    place = torch.arange(len(rows)) - sets.offsets[rows]
    prob = sets.prob.double().where(place < own[rows], 0)
    mass = prob.new_zeros(len(sets)).index_add_(0, rows, prob)
    before = mass.index_add(0, rows, -prob.where(place == own[rows] - 1, 0))  # without the last
    wrong = (own < k_min) | (own > k_max)
    wrong |= (mass < coverage - ROUNDING) & (own < k_max)
    wrong |= (before > coverage + ROUNDING) & (own > k_min)
    wrong &= sets.sizes > 0
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} holds {int(own[row])} tokens of mass {float(mass[row]):.6f}, which is not "
            f"what coverage {coverage}, k_min {k_min} and k_max {k_max} select"
        )


def write(path: Path, sets: Candidates, targets: Tensor, records: Tensor, vocabulary: int) -> None:
    """Write a shard.

    sets of N positions, on the CPU; targets (N,) int64, those of empty rows are not read; records
    (R,) int64, the positions of each.
    """
    live, (entry, _) = sets.sizes > 0, _golds(sets, targets)
    gold = torch.ones_like(targets)  # place in the row plus one, or 0 where gold was forced in
    gold[live] = (entry - sets.offsets[:-1][live] + 1).where(~sets.gold_forced[live], 0)
    starts = offsets_of(records)
    columns = {
        "positions": records,
        "entries": sets.offsets[starts].diff(),
        "sizes": sets.sizes,
        "gold": gold,
        "codes": _encoded(sets.prob, sets.logp),
    }
    packed = {name: pack(values, width_of(_largest(values))) for name, values in columns.items()}
    packed["ids"] = pack(sets.ids, width_of(vocabulary - 1))
    exact = {"log_z": sets.log_z.float(), "log_outside": sets.log_outside.float()}
    # One key alone: several would be written in an order that changes from run to run.
    save_file({**packed, **exact}, path, metadata={"records": str(len(records))})


class Shard:
    """A written shard, mapped: what is read of it is what is asked for.

    Raises SafetensorError, KeyError or ValueError for a file that is no shard.
    """

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.count = int((file.metadata() or {})["records"])
            missing = set(COLUMNS) - set(file.keys())
            if missing:
                raise KeyError(*missing)
            self._columns = {name: file.get_tensor(name) for name in COLUMNS}
        self._positions = offsets_of(unpack(self._columns["positions"])[: self.count])  # (R + 1,)
        self._entries = offsets_of(unpack(self._columns["entries"])[: self.count])  # (R + 1,)

    def read(self, records: Tensor) -> tuple[Candidates, Tensor, Tensor]:
        """Sets of the positions of `records` (R,), in that order; their targets (N,) int64, 0 at
        empty rows; and how many positions each record has (R,)."""
        columns = self._columns
        at, lengths = self._positions[records], self._positions.diff()[records]
        begin, entries = self._entries[records], self._entries.diff()[records]
        sizes = take(columns["sizes"], at, lengths)  # (N,)
        gold = take(columns["gold"], at, lengths)
        ids = take(columns["ids"], begin, entries)  # (nnz,)
        codes = take(columns["codes"], begin, entries)
        rows = ranges(at, lengths)
        log_outside = columns["log_outside"][rows]
        offsets, forced, live = offsets_of(sizes), gold == 0, sizes > 0
        targets = torch.zeros_like(sizes)
        targets[live] = ids[(offsets[:-1] + (gold - 1).where(~forced, sizes - 1))[live]]
        prob, logp = _decoded(codes)
        sets = Candidates(ids, offsets, forced, logp, columns["log_z"][rows], log_outside, prob)
        return sets, targets, lengths


def _encoded(prob: Tensor, logp: Tensor) -> Tensor:
    """(nnz,) int64 codes, the larger the less probable: 0 is a probability of 1."""
    prob = prob.float()
    bits = prob.clamp(2**-126, 1).view(torch.int32).long()
    below = ((_LOG_SMALLEST - logp.double()) * GRID).round().clamp(1, LARGEST - SMALLEST)
    return (ONE - bits).where(prob >= 2**-126, SMALLEST + below.long())


def _decoded(codes: Tensor) -> tuple[Tensor, Tensor]:
    """(nnz,) float32 each: probabilities, to the bit above 2**-126, and their logarithms."""
    exact = codes <= SMALLEST
    prob = (ONE - codes.clamp(max=SMALLEST)).int().view(torch.float32)
    below = _LOG_SMALLEST - (codes - SMALLEST).double() / GRID
    logp = prob.double().log().where(exact, below).float()
    return prob.where(exact, logp.exp()), logp


def _golds(sets: Candidates, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The entries that are their row's target, and how many a row has (N,)."""
    entry = (sets.ids == targets[sets.rows]).nonzero().squeeze(1)
    return entry, torch.bincount(sets.rows[entry], minlength=len(sets))


def _largest(values: Tensor) -> int:
    return int(values.max()) if values.numel() else 0


DAMAGED = (
    SafetensorError,
    KeyError,
    ValueError,
    OSError,
)  # what `Shard` raises for a file that is none
