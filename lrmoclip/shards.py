"""One shard of a candidate store: the sets of some whole records as bit-packed columns, one file.

Log-probabilities are codes c = round(-256 log p), fixed-point on a grid of delta = 1/256 nat. An
error e_j, uniform on the grid, moves the normalised distribution by KL = Var(e) / 2, delta^2 / 24 =
6e-7 nats on average and delta^2 / 8 = 2e-6 at most: float32's own rounding of a loss of a few nats,
and far below that of bfloat16 logits, whose grid is 1/16 nat between 8 and 16. What is read is
normalised, since without it the error would be of first order: see `_log_probabilities`."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrmoclip.bitpack import pack, take, unpack, width_of
from lrmoclip.candidates import Candidates, offsets_of, ranges

GRID = 256  # steps a nat
LOWEST = 2**24 - 1  # largest code, exact in float32: 65,536 nats below certainty, 0 in any float
# A name, and what is stored: one value a record, a position or an entry.
COLUMNS = ("positions", "entries", "sizes", "gold", "ids", "codes", "log_z", "log_outside")


def bytes_per_position(vocabulary: int, k: int, nats: float = 31.9) -> float:
    """Bytes of a position with k candidates, the least likely of them `nats` below certainty.

    k ids and codes, the row's size and the gold token's place, and 8 bytes for log_z and
    log_outside; what a record adds (two lengths, 3 bytes or so) is left out. At V = 151,936 that is
    203 at k = 50 and 506 at k = 128. DistillKit (https://github.com/arcee-ai/DistillKit) takes 127
    and 344: its ids are as wide, but a polynomial and a few bits of residual stand for its
    log-probabilities, with an error that depends on the row; ours have one bound for all.
    """
    code = width_of(min(round(nats * GRID), LOWEST))
    return (k * (width_of(vocabulary - 1) + code) + 2 * width_of(k)) / 8 + 8


def check(sets: Candidates, targets: Tensor, records: Tensor, vocabulary: int) -> None:
    """ValueError where these, as for `write`, do not fit one another."""
    if targets.shape != (len(sets),):
        raise ValueError(f"targets must be ({len(sets)},), got {tuple(targets.shape)}")
    if records.ndim != 1 or (records < 0).any() or int(records.sum()) != len(sets):
        raise ValueError(f"records must be the positions of each record, {len(sets)} in all")
    if sets.ids.numel() and not 0 <= int(sets.ids.min()) <= int(sets.ids.max()) < vocabulary:
        raise ValueError(f"ids must lie in [0, {vocabulary})")
    if not sets.logp.isfinite().all():
        raise ValueError("log-probabilities must be finite")
    if not torch.equal(_golds(sets, targets)[1], (sets.sizes > 0).long()):
        raise ValueError("a row does not hold its target exactly once: are these its targets?")


def write(path: Path, sets: Candidates, targets: Tensor, records: Tensor, vocabulary: int) -> None:
    """Write a shard.

    sets of N positions, on the CPU; targets (N,) int64, those of empty rows are not read; records
    (R,) int64, the positions of each.
    """
    live, (entry, _) = sets.sizes > 0, _golds(sets, targets)
    gold = torch.ones_like(targets)  # place in the row plus one, or 0 where gold was forced in
    gold[live] = (entry - sets.offsets[:-1][live] + 1).where(~sets.gold_forced[live], 0)
    codes = (-GRID * sets.logp.double()).round().clamp(0, LOWEST).long()
    starts = offsets_of(records)
    columns = {
        "positions": records,
        "entries": sets.offsets[starts].diff(),
        "sizes": sets.sizes,
        "gold": gold,
        "codes": codes,
    }
    packed = {name: pack(values, width_of(_largest(values))) for name, values in columns.items()}
    packed["ids"] = pack(sets.ids, width_of(vocabulary - 1))
    exact = {"log_z": sets.log_z, "log_outside": sets.log_outside}
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
        logp = _log_probabilities(codes, offsets, log_outside)
        sets = Candidates(ids, offsets, forced, logp, columns["log_z"][rows], log_outside)
        return sets, targets, lengths


def _log_probabilities(codes: Tensor, offsets: Tensor, log_outside: Tensor) -> Tensor:
    """(nnz,) float32: -c / 256, shifted by row so that what is inside sums to 1 - rho.

    No shift is larger than half a step, rounding's own error: where rho is so close to one that
    its float32 leaves 1 - rho few digits, the codes know better.
    """
    logp = codes.double() / -GRID
    sizes = offsets.diff()
    rows = torch.arange(len(sizes)).repeat_interleave(sizes)
    inside = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, rows, logp.exp())
    rho = log_outside.double().exp().clamp(max=1)  # its rounding may lie above
    shift = torch.log1p(-rho) - inside.log()  # nan where a row is empty
    return (logp + shift.clamp(-0.5 / GRID, 0.5 / GRID)[rows]).float()


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
