"""Stage 0: the candidate set S_t of each supervised position, kept as rows of a CSR layout.

S_t is the smallest set of most probable tokens whose sum p >= coverage (tau), its size clipped to
[k_min, k_max], ties broken by the lower token id, united with the gold token y_t.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


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
    """

    ids: Tensor
    offsets: Tensor
    gold_forced: Tensor
    logp: Tensor
    log_z: Tensor
    log_outside: Tensor
    prob: Tensor | None = None

    def __post_init__(self) -> None:
        if self.prob is None:
            object.__setattr__(self, "prob", self.logp.exp())

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

    def union(self) -> Tensor:
        """(|U|,) int64: the distinct ids of all rows, rising."""
        return self.ids.unique()

    def to(self, device: torch.device | str) -> "Candidates":
        """The same sets on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, index: Tensor) -> "Candidates":
        """The rows that `index` names, in its order: (M,) int64 positions, or (N,) bool."""
        index = torch.arange(len(self), device=self.ids.device)[index]
        sizes = self.sizes[index]
        offsets = _offsets(sizes)
        # Entry i of the new row r lies at the old start of r plus its place in the row.
        shift = (self.offsets[index] - offsets[:-1]).repeat_interleave(sizes)
        entry = torch.arange(len(shift), device=shift.device) + shift
        return Candidates(
            ids=self.ids[entry],
            offsets=offsets,
            gold_forced=self.gold_forced[index],
            logp=self.logp[entry],
            log_z=self.log_z[index],
            log_outside=self.log_outside[index],
            prob=self.prob[entry],
        )

    @staticmethod
    def cat(parts: Sequence["Candidates"]) -> "Candidates":
        """All rows of `parts`, one after the other. ValueError if there are none."""
        if not parts:
            raise ValueError("cat needs at least one Candidates")
        joined = {
            f.name: torch.cat([getattr(c, f.name) for c in parts]) for f in fields(Candidates)
        }
        joined["offsets"] = _offsets(torch.cat([c.sizes for c in parts]))
        return Candidates(**joined)

    def narrow(self, coverage: float, k_min: int, k_max: int, targets: Tensor) -> "Candidates":
        """What `select_candidates` gives at a narrower setting, read off the stored rows.

        A narrower set is a prefix of the row before a forced gold token, plus the gold token;
        what is dropped joins the outside mass. ids, gold_forced and logp are those of a fresh
        selection to the bit, log_outside to rounding. targets (N,) int64 as at selection; those
        of empty rows are not read. ValueError where a row is too short for the setting (it was
        stored at a lower coverage, k_min or k_max) or does not hold its target.
        """
        _check_setting(coverage, k_min, k_max)
        if targets.shape != (len(self),):
            raise ValueError(f"targets must be ({len(self)},), got {tuple(targets.shape)}")
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
            offsets=_offsets(_count(rows[kept], len(self))),
            gold_forced=forced,
            logp=self.logp[kept],
            log_z=self.log_z,
            log_outside=outside.logsumexp(1).to(self.log_outside.dtype),
            prob=self.prob[kept],
        )


def select_candidates(
    logits: Tensor,
    targets: Tensor,
    *,
    coverage: float,
    k_min: int = 1,
    k_max: int,
    ignore_index: int = -100,
) -> Candidates:
    """The candidate set of each position: S_t of the module's head.

    logits (N, V) floating, targets (N,) int64 -> Candidates of N rows, on the logits' device. A
    row holds k_max tokens at most, or k_max + 1 where gold was forced in; the row of an ignored
    target is empty. Probabilities are the float32 softmax, summed in float64; where rounding
    keeps that sum below the coverage, k_max decides. log_outside is a logsumexp over the
    complement, for 1 - sum loses what is below 1e-8. Temporaries take four times the logits in
    float32: hand over many positions in blocks (and `cat`).

    ValueError: coverage outside (0, 1], k_min < 1, k_max < k_min, a shape, dtype or target that
    does not fit, logits of a supervised position that float32 cannot hold or that are not finite.
    """
    _check_setting(coverage, k_min, k_max)
    if logits.ndim != 2 or not logits.shape[1] or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating (N, V), V > 0; got {logits.dtype} {tuple(logits.shape)}"
        )
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"targets must be int64 ({logits.shape[0]},), one per row of logits; "
            f"got {targets.dtype} {tuple(targets.shape)}"
        )
    (n, vocab), device = logits.shape, logits.device
    live = targets != ignore_index  # (N,)
    gold = targets[live][:, None]  # (n, 1)
    if ((gold < 0) | (gold >= vocab)).any():
        raise ValueError(f"targets must lie in [0, {vocab}) or be {ignore_index} (ignore_index)")
    z = logits.detach()[live].float()  # (n, V), a copy
    low, peak = z.aminmax(dim=1)  # a NaN is both
    if not (low.isfinite() & peak.isfinite()).all():
        raise ValueError("logits of supervised positions must be finite in float32")

    # Probability and id as one integer that no two tokens share: topk then has no ties to break.
    # (The bits of non-negative floats order as the floats do.)
    p = z.softmax(1)
    key = torch.add(-torch.arange(vocab, device=device), p.view(torch.int32), alpha=2**32)
    top = key.topk(min(k_max, vocab), dim=1).indices  # (n, K)
    del key
    size = _cover_size(p.gather(1, top).double().cumsum(1), top.shape[1], coverage)
    size = size.clamp(min(k_min, vocab), top.shape[1])  # (n,)

    kept = torch.arange(top.shape[1], device=device) < size[:, None]
    forced = ~((top == gold) & kept).any(1)
    kept = torch.cat([kept, forced[:, None]], 1)  # (n, K + 1): the prefix, then a forced gold
    ids = torch.cat([top, gold], 1)[kept]
    rows = _rows(kept.sum(1))

    # Everything relative to the largest logit, or a common offset would eat the digits.
    z -= peak[:, None]
    log_z = -p.gather(1, top[:, 0:1]).squeeze(1).log()  # p of the largest is 1 / Z
    logp = z[rows, ids] - log_z[rows]
    z[rows, ids] = -torch.inf

    def spread(values: Tensor) -> Tensor:  # (n,) to (N,), zero at ignored positions
        return values.new_zeros(n).masked_scatter(live, values)

    return Candidates(
        ids=ids,
        offsets=_offsets(spread(kept.sum(1))),
        gold_forced=spread(forced),
        logp=logp,
        log_z=spread(peak + log_z),
        log_outside=spread(z.logsumexp(1) - log_z),
        prob=p[rows, ids],
    )


def _check_setting(coverage: float, k_min: int, k_max: int) -> None:
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


def _offsets(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
