"""Stage 0: the candidate set S_t of each supervised position, kept as rows of a CSR layout.

S_t is the smallest set of most probable tokens whose sum p >= coverage (tau), its size clipped to
[k_min, k_max], ties broken by the lower token id, united with the gold token y_t.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lrmoclip.core.arguments import (
    check_number,
    check_tensor,
    check_type,
    check_vector,
    check_whole,
)
from lrmoclip.core.eager import eager

# Logits of one block of rows: what a cache holds, and what keeps an accelerator busy.
BLOCK, DEVICE_BLOCK = 2**20, 2**26
THIN = 1e-30  # an outside mass below this is summed anew, relative to its own largest logit


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidate sets of N positions; row t is `ids[offsets[t]:offsets[t + 1]]`.

    A row runs by falling probability, ties by lower id, without repeats. A gold token that only
    the union put there is less probable than all others and so stands last. A row without ids is
    a position with an ignored target: it holds gold_forced False, log_z 0 and log_outside 0 (an
    empty set leaves everything outside).

    ids         (nnz,) int64    token ids
    offsets     (N + 1,) int64  where each row begins, and at last nnz
    gold_forced (N,) bool       the base's own set lacked the gold token
    logp        (nnz,) float32  log p(id)
    log_z       (N,) float32    log-partition of the full softmax
    log_outside (N,) float32    log of the mass outside the row (rho_t), -inf where nothing is
    prob        (nnz,) float32  the softmax values that coverage sums. Where not given they are
                                exp(logp), right to about 1e-6: `narrow` may then differ by a
                                token from a fresh selection where a sum meets the coverage.

    TypeError, ValueError: a field that is no tensor of these shapes and dtypes (any floating one
    where float32 stands). What the fields hold, `check` looks at.
    """

    ids: Tensor
    offsets: Tensor
    gold_forced: Tensor
    logp: Tensor
    log_z: Tensor
    log_outside: Tensor
    prob: Tensor | None = None

    def __post_init__(self) -> None:
        check_tensor("offsets", self.offsets)
        check_tensor("ids", self.ids)
        n, nnz = max(self.offsets.numel() - 1, 0), self.ids.numel()
        check_vector("offsets", self.offsets, n + 1, torch.int64)
        check_vector("ids", self.ids, nnz, torch.int64)
        check_vector("gold_forced", self.gold_forced, n, torch.bool)
        check_vector("logp", self.logp, nnz)
        check_vector("log_z", self.log_z, n)
        check_vector("log_outside", self.log_outside, n)
        if self.prob is None:
            object.__setattr__(self, "prob", self.logp.exp())
        check_vector("prob", self.prob, nnz)

    def __len__(self) -> int:
        """N, the number of positions, those with empty rows included."""
        return self.offsets.numel() - 1

    @property
    def sizes(self) -> Tensor:
        """(N,) int64: |S_t|."""
        return self.offsets.diff()

    @property
    def rows(self) -> Tensor:
        """(nnz,) int64: the position that each entry belongs to."""
        return _rows(self.sizes)

    def check(self, vocabulary: int) -> None:
        """ValueError where offsets do not cut the entries into rows or an id is no token's."""
        ids, offsets, sizes = self.ids, self.offsets, self.sizes
        falls = len(sizes) and int(sizes.min()) < 0
        if falls or int(offsets[0]) != 0 or int(offsets[-1]) != len(ids):
            raise ValueError(f"offsets must rise from 0 to {len(ids)}, the number of ids")
        if len(ids):
            low, high = map(int, ids.aminmax())
            if low < 0 or high >= vocabulary:
                raise ValueError(f"ids must lie in [0, {vocabulary}), got [{low}, {high}]")

    def union(self) -> Tensor:
        """(|U|,) int64: the distinct ids of all rows, rising."""
        return self.ids.unique()

    def to(self, device: torch.device | str) -> "Candidates":
        """The same sets on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, index: Tensor) -> "Candidates":
        """The rows that `index` names, in its order: (M,) int64 positions, or (N,) bool.

        TypeError, ValueError, IndexError: an index that is neither, or beyond the rows.
        """
        check_tensor("index", index)
        if index.ndim != 1 or index.dtype not in (torch.int64, torch.bool):
            raise ValueError(
                f"index must be (M,) int64 or (N,) bool, got {index.dtype} {tuple(index.shape)}"
            )
        index = torch.arange(len(self), device=self.ids.device)[index]
        sizes = self.sizes[index]
        entry = ranges(self.offsets[index], sizes)
        return Candidates(
            ids=self.ids[entry],
            offsets=offsets_of(sizes),
            gold_forced=self.gold_forced[index],
            logp=self.logp[entry],
            log_z=self.log_z[index],
            log_outside=self.log_outside[index],
            prob=self.prob[entry],
        )

    @staticmethod
    def cat(parts: Sequence["Candidates"]) -> "Candidates":
        """All rows of `parts`, one after the other. ValueError if there are none."""
        for part in parts:
            check_type("each of parts", part, Candidates, "a Candidates")
        if not parts:
            raise ValueError("cat needs at least one Candidates")
        joined = {
            f.name: torch.cat([getattr(c, f.name) for c in parts]) for f in fields(Candidates)
        }
        joined["offsets"] = offsets_of(torch.cat([c.sizes for c in parts]))
        return Candidates(**joined)

    @eager
    def narrow(
        self, coverage: float, k_min: int, k_max: int, targets: Tensor, *, complete: bool = False
    ) -> "Candidates":
        """What `select_candidates` gives at a narrower setting, read off the stored rows.

        A narrower set is a prefix of the row before a forced gold token, plus the gold token;
        what is dropped joins the outside mass. ids, gold_forced and logp are those of a fresh
        selection to the bit, log_outside to rounding. targets (N,) int64 as at selection; those
        of empty rows are not read. ValueError where a row is too short for the setting (it was
        stored at a lower coverage, k_min or k_max) or does not hold its target.

        complete: the rows are known to hold what the setting asks for. One whose sum misses the
        coverage, which rounding alone can do then, is kept whole instead of refused.
        """
        check_setting(coverage, k_min, k_max)
        check_vector("targets", targets, len(self), torch.int64)
        sizes, rows = self.sizes, self.rows
        place = torch.arange(len(rows), device=rows.device) - self.offsets[rows]  # (nnz,)
        is_gold = self.ids == targets[rows]
        live = sizes > 0
        if not torch.equal(_count(rows[is_gold], len(self)), live.long()):
            raise ValueError("a row does not hold its target exactly once: are these its targets?")

        # (N, K): the prefix sums of a fresh selection, in the same order and so to the same bits.
        prob = self.prob.new_zeros(len(self), int(sizes.max()) if len(self) else 0)
        prob[rows, place] = self.prob
        own = sizes - self.gold_forced.long()
        size = _cover_size(prob.double().cumsum(1), own, coverage).clamp(k_min, k_max)  # (N,)
        if complete:
            size = size.minimum(own)
        # A row with nothing outside holds the whole vocabulary, and no setting asks for more.
        whole = self.log_outside == -torch.inf
        too_short = live & ~whole & (size > own)
        if too_short.any():
            row = int(too_short.nonzero()[0])
            raise ValueError(
                f"row {row} stores {int(own[row])} tokens and the setting (coverage {coverage}, "
                f"k_min {k_min}, k_max {k_max}) asks for more: it is wider than the stored one"
            )

        kept = place < size[rows]
        forced = _count(rows[is_gold & ~kept], len(self)).bool()
        kept |= is_gold
        # (N, 1 + K): the old outside mass and all that is dropped, as logarithms.
        outside = prob.new_full((len(self), prob.shape[1] + 1), -torch.inf, dtype=torch.float64)
        outside[:, 0] = self.log_outside
        outside[rows[~kept], place[~kept] + 1] = self.logp[~kept].double()
        return Candidates(
            ids=self.ids[kept],
            offsets=offsets_of(_count(rows[kept], len(self))),
            gold_forced=forced,
            logp=self.logp[kept],
            log_z=self.log_z,
            log_outside=outside.logsumexp(1).to(self.log_outside.dtype),
            prob=self.prob[kept],
        )


@eager
@torch.inference_mode(False)  # or its sets could not be saved for a backward pass
@torch.no_grad()
def select_candidates(
    logits: Tensor,
    targets: Tensor,
    *,
    coverage: float,
    k_min: int = 1,
    k_max: int,
    ignore_index: int = -100,
) -> Candidates:
    """The candidate set of each position: the smallest set of most probable tokens whose sum of
    p = softmax(logits) is at least `coverage`, its size clipped to [k_min, k_max], ties broken by
    the lower id, united with the target.

    logits (N, V) floating, targets (N,) int64 -> Candidates of N rows, on the logits' device. A
    row holds k_max tokens at most, or k_max + 1 where gold was forced in; the row of an ignored
    target is empty. Probabilities are the float32 softmax, summed in float64; where rounding
    keeps that sum below the coverage, k_max decides. log_outside comes from exponentials of the
    complement, for 1 - sum loses what is below 1e-8. Works through blocks of rows that a cache
    holds: temporaries do not grow with N.

    ValueError: coverage outside (0, 1], k_min < 1, k_max < k_min, a shape, dtype or target that
    does not fit, logits of a supervised position that float32 cannot hold or that are not finite.
    TypeError: an argument of another type.
    """
    check_setting(coverage, k_min, k_max)
    check_whole("ignore_index", ignore_index)
    check_tensor("logits", logits)
    if logits.ndim != 2 or not logits.shape[1] or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating (N, V), V > 0; got {logits.dtype} {tuple(logits.shape)}"
        )
    check_vector("targets", targets, len(logits), torch.int64)
    n, vocab = logits.shape
    live = targets != ignore_index  # (N,)
    gold = targets[live]  # (n,)
    if ((gold < 0) | (gold >= vocab)).any():
        raise ValueError(f"targets must lie in [0, {vocab}) or be {ignore_index} (ignore_index)")

    position = live.nonzero().squeeze(1)  # (n,)
    block = max(1, (BLOCK if logits.device.type == "cpu" else DEVICE_BLOCK) // vocab)
    blocks = zip(position.split(block), gold.split(block), strict=True)
    sets = Candidates.cat(
        [_select_block(logits[rows].float(), y, coverage, k_min, k_max) for rows, y in blocks]
    )

    def spread(values: Tensor) -> Tensor:  # (n,) to (N,), zero at ignored positions
        return values.new_zeros(n).masked_scatter(live, values)

    return replace(
        sets,
        offsets=offsets_of(spread(sets.sizes)),
        gold_forced=spread(sets.gold_forced),
        log_z=spread(sets.log_z),
        log_outside=spread(sets.log_outside),
    )


def _select_block(z: Tensor, gold: Tensor, coverage: float, k_min: int, k_max: int) -> Candidates:
    """The sets of a few rows: z (n, V) float32, gold (n,)."""
    vocab = z.shape[1]
    held = min(k_max, vocab)
    low, peak = z.amin(1), z.amax(1)  # a NaN is both; aminmax would be fifty times slower
    if not (low.isfinite() & peak.isfinite()).all():
        raise ValueError("logits of supervised positions must be finite in float32")
    p = z.softmax(1)
    # (n, K + 1): the one beyond the last shows whether the last has equals outside.
    top, ids = p.topk(min(held + 1, vocab), dim=1)
    size = _cover_size(top[:, :held].double().cumsum(1), held, coverage)
    size = size.clamp(min(k_min, vocab), held)  # (n,)
    ids = _by_lower_id(top[:, :held], ids[:, :held])
    if vocab > held:
        _settle_ties(ids, p, top, size)

    kept = torch.arange(held, device=z.device) < size[:, None]
    gold = gold[:, None]
    forced = ~((ids == gold) & kept).any(1)
    kept = torch.cat([kept, forced[:, None]], 1)  # (n, K + 1): the prefix, then a forced gold
    ids = torch.cat([ids, gold], 1)[kept]  # (nnz,)
    sizes = kept.sum(1)
    rows = _rows(sizes)
    log_z = -top[:, 0].log()  # of z - peak, or a common offset would eat digits: p_max is 1 / Z
    logp = z[rows, ids] - peak[rows] - log_z[rows]
    prob = p[rows, ids]
    p[rows, ids] = 0
    outside = p.sum(1)
    sets = Candidates(ids, offsets_of(sizes), forced, logp, peak + log_z, outside.log(), prob)
    if (thin := (outside < THIN).nonzero().squeeze(1)).numel():
        rest, part = z[thin] - peak[thin, None], sets.select(thin)
        rest[part.rows, part.ids] = -torch.inf
        sets.log_outside[thin] = rest.logsumexp(1) - log_z[thin]
    return sets


def _by_lower_id(top: Tensor, ids: Tensor) -> Tensor:
    """(n, K): ids by falling probability `top`, equals by rising id.

    Probability and id make one integer that no two tokens of a row share; the bits of
    non-negative floats order as the floats do.
    """
    key = top.contiguous().view(torch.int32).long() * 2**32 - ids
    return ids.gather(1, key.argsort(1, descending=True))


def _settle_ties(ids: Tensor, p: Tensor, top: Tensor, size: Tensor) -> None:
    """Where the last token kept has equals beyond the ids at hand, keep the lowest ids of them.

    ids (n, K) is changed; p (n, V); top (n, K + 1) the largest values of p; size (n,).
    """
    edge = top.gather(1, size[:, None] - 1)  # (n, 1)
    tied = (top[:, -1:] == edge).squeeze(1).nonzero().squeeze(1)  # (m,)
    if not tied.numel():
        return
    above = (top[tied] > edge[tied]).sum(1)  # (m,): tokens that are surely kept
    row, equal = (p[tied] == edge[tied]).nonzero(as_tuple=True)  # by row, then by rising id
    starts = offsets_of(_count(row, len(tied)))
    rank = torch.arange(len(row), device=row.device) - starts[row]
    used = rank < (size[tied] - above)[row]
    row, rank = row[used], rank[used]
    ids[tied[row], above[row] + rank] = equal[used]


def check_setting(coverage: float, k_min: int, k_max: int) -> None:
    """ValueError for a coverage outside (0, 1], k_min < 1 or k_max < k_min; TypeError for a
    coverage that is no number, sizes that are no integers."""
    check_number("coverage", coverage, "a number in (0, 1]")
    check_whole("k_min", k_min)
    check_whole("k_max", k_max)
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must lie in (0, 1], got {coverage}")
    if k_min < 1:
        raise ValueError(f"k_min must be at least 1, got {k_min}")
    if k_max < k_min:
        raise ValueError(f"k_max must be at least k_min ({k_min}), got {k_max}")


def _cover_size(sums: Tensor, held: Tensor | int, coverage: float) -> Tensor:
    """(n,): the shortest prefix that covers, or one more than `held` where none of them does.

    sums (n, K): prefix sums of the probabilities, of which the first `held` count.
    """
    missed = (sums < coverage).sum(1)
    return torch.clamp(missed, max=held) + 1


def _count(rows: Tensor, n: int) -> Tensor:
    return torch.bincount(rows, minlength=n)


def _rows(sizes: Tensor) -> Tensor:
    return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)


def offsets_of(sizes: Tensor) -> Tensor:
    """(n + 1,): where parts of such sizes begin when they follow one another, and the end."""
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def ranges(starts: Tensor, sizes: Tensor) -> Tensor:
    """(sum of sizes,): start, start + 1, ... of each part, one part after the other."""
    shift = (starts - offsets_of(sizes)[:-1]).repeat_interleave(sizes)
    return torch.arange(len(shift), device=shift.device) + shift
