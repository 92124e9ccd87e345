"""Stage 1: the restricted loss, the streamed probe of the full softmax, and the EWC penalty.

loss_t = logsumexp(z_j, j in S_t) - z_y, the cross-entropy of a softmax renormalised over the
candidates S_t, with z = logit_map(W h + bias). Only rows of W that a set names are multiplied.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.arguments import (
    check_number,
    check_tensor,
    check_type,
    check_vector,
    check_whole,
)
from lrmoclip.core.candidates import Candidates
from lrmoclip.core.eager import eager
from lrmoclip.core.kernels import Pairs, block_logits, pair_logits
from lrmoclip.core.once import Once, once

LogitMap = Callable[[Tensor], Tensor]


@eager
def restricted_linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    candidates: Candidates,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    logit_map: LogitMap | None = None,
    denominator: str = "own",
    negatives: Tensor | None = None,
    tail: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    path: str = "auto",
    sparse_grad: bool = False,
) -> Tensor:
    """Cross-entropy over candidates, straight from hidden states and the output matrix.

    hidden (N, d), weight (V, d), bias (V,), floating; candidates of N rows, each holding its
    gold token, on the device of hidden; targets (N,) int64. logit_map is elementwise (scale,
    soft-cap), applied after the bias. With D_t the tokens of the denominator,

        loss_t = log sum_{j in D_t} exp(z_j + c_j) - z_y

    denominator="own":   D_t = S_t, c = 0: the literal method.
    denominator="union": D_t = U, the union of all rows given, c = 0.
    negatives (M,) int64, with "union": distinct ids outside U, drawn uniformly there, join D_t
        at every position with c = log((V - |U|) / M); exp of the denominator is then an unbiased
        estimate of the full partition. M = 0 only where U is the whole vocabulary.
    tail (N,), with "own": one more logit of each position's denominator, a constant of no token.

    Computed and returned in float32, or float64 where hidden or weight is, under autocast, too;
    gradients come back in the inputs' dtypes. reduction "none" gives (N,) with zeros at ignored
    targets, "sum" its sum, "mean" that sum over the number of targets not ignored. The mean over
    nothing is 0 with zero gradients (torch's is nan): a micro-batch without supervised positions
    has nothing to say, and must not destroy the weights by saying it. Differentiable once in
    hidden, weight and bias (and in what logit_map closes over); torch.compile runs it as it stands.

    path: how "own" comes by its logits. "gather" multiplies each position by its own set, "union"
    by the union of all sets, from which it takes its own; the results differ by rounding. "auto"
    takes "union" where that means fewer than `kernels.BLOCK_PER_PAIR` products for each one needed.

    sparse_grad: the gradient of weight is a sparse COO tensor of the |U| + M rows that were used,
    for an untied head and an optimizer that takes it. Else it is dense; but where weight is a leaf
    that already has a `.grad`, a sparse one is added to it in place, which is also what a hook on
    weight or `torch.autograd.grad` then sees. The largest tensors, forward and
    backward, are (|U| + M, d), (nnz,) and, but for "gather", (N, |U| + M), beside that gradient.

    ValueError: shapes that do not fit, a row that does not hold its target exactly once, with
    "own" any token twice, ids or negatives that break the rules above, an unknown denominator,
    reduction or path. TypeError: an argument of another type. RuntimeError: a derivative other
    than the first (`once`).
    """
    _check_choice("denominator", denominator, ("own", "union"))
    _check_choice("reduction", reduction, ("mean", "sum", "none"))
    _check_choice("path", path, ("auto", "gather", "union"))
    if denominator == "union" and path == "gather":
        raise ValueError("path='gather' needs denominator='own': the other one needs every product")
    if negatives is not None and denominator != "union":
        raise ValueError("negatives need denominator='union'")
    if tail is not None and denominator != "own":
        raise ValueError("a tail needs denominator='own'")
    check_type("sparse_grad", sparse_grad, bool, "True or False")
    check_type("candidates", candidates, Candidates, "a Candidates")
    _check_inputs(hidden, weight, bias, logit_map, candidates, targets, ignore_index)
    n, vocab = hidden.shape[0], weight.shape[0]

    if tail is not None:
        check_vector("tail", tail, n)
        if tail.device != hidden.device:
            raise ValueError(f"tail must lie on {hidden.device} as hidden, not {tail.device}")

    # Of all rows, whether their target is ignored or not.
    used, local = candidates.ids.unique(return_inverse=True)  # (|U|,), (nnz,)
    if negatives is not None:
        _check_negatives(negatives, used, vocab)

    live = (targets != ignore_index).nonzero().squeeze(1)  # (n,)
    states = hidden.to(_computed_in(hidden, weight))
    if len(live) < n:
        candidates, states, targets = candidates.select(live), states[live], targets[live]
        local = torch.searchsorted(used, candidates.ids)
    pairs = Pairs(used, local, candidates.rows, candidates.offsets)
    gold = (candidates.ids == targets[pairs.rows]).nonzero().squeeze(1)  # (n,) places in ids
    if not torch.equal(pairs.rows[gold], torch.arange(len(live), device=gold.device)):
        raise ValueError("every supervised row of candidates must hold its target exactly once")

    if denominator == "own":
        z = pair_logits(states, weight, pairs, path=path, sparse_grad=sparse_grad)  # (nnz,)
        z = _finish(z, bias, candidates.ids, logit_map)
        rows, offsets = pairs.rows, pairs.offsets
        if tail is not None:
            z, rows, offsets = _with_column(z, rows, offsets, tail.detach()[live])
            gold = gold + torch.arange(len(gold), device=gold.device)
        losses, _ = _SegmentCrossEntropy.apply(z, rows, offsets, gold)
    else:
        drawn = used.new_empty(0) if negatives is None else negatives
        ids = torch.cat([used, drawn])
        z = block_logits(states, weight, ids, sparse_grad=sparse_grad)  # (n, |U| + M)
        z = _finish(z, bias, ids, logit_map)
        if len(drawn):
            shift = z.new_zeros(z.shape[1])
            shift[len(used) :] = math.log((vocab - len(used)) / len(drawn))
            z = z + shift
        losses = F.cross_entropy(z, local[gold], reduction="none")

    if reduction == "none":
        return losses.new_zeros(n).index_copy(0, live, losses)
    return losses.sum() / (max(len(live), 1) if reduction == "mean" else 1)


def _with_column(
    z: Tensor, rows: Tensor, offsets: Tensor, column: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Segments z (nnz,), their rows (nnz,) and offsets (n + 1,), each one longer: by its entry of
    `column` (n,), which stands last."""
    every = torch.arange(len(column), device=z.device)
    offsets = offsets + torch.arange(len(column) + 1, device=z.device)
    longer = z.new_empty(len(z) + len(column))
    longer = longer.index_copy(0, torch.arange(len(z), device=z.device) + rows, z)
    longer = longer.index_copy(0, offsets[1:] - 1, column.to(z.dtype))
    return longer, every.repeat_interleave(offsets.diff()), offsets


class _SegmentCrossEntropy(Once):
    """log sum_{e of row t} exp(z_e) - z_gold, (n,), and the softmax within each row, (nnz,):
    z (nnz,), rows (nnz,), offsets (n + 1,), gold (n,) int64. The gradient is softmax - onehot."""

    @staticmethod
    def forward(z, rows, offsets, gold):
        peak = torch.segment_reduce(z, "max", offsets=offsets)  # (n,)
        p = (z - peak[rows]).exp_()
        total = torch.segment_reduce(p, "sum", offsets=offsets)
        losses = total.log() - (z[gold] - peak)
        return losses, p.div_(total[rows])

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, rows, _, gold = inputs
        _, p = output
        ctx.mark_non_differentiable(p)
        ctx.save_for_backward(p, rows, gold)

    @staticmethod
    @once
    def backward(ctx, grad, _):
        p, rows, gold = ctx.saved_tensors
        of_z = p * grad[rows]
        of_z[gold] -= grad
        return of_z, None, None, None


class Probe(NamedTuple):
    """The full softmax of the current model at N positions, without a graph."""

    cross_entropy: Tensor  # (N,): log Z - z_y
    log_outside: Tensor | None  # (N,): log of the mass outside the stored sets, rho_t


@eager
@torch.no_grad()
def probe(
    hidden: Tensor,
    weight: Tensor,
    candidates: Candidates | None,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    logit_map: LogitMap | None = None,
    ignore_index: int = -100,
    chunk: int = 4096,
) -> Probe:
    """Full cross-entropy and outside mass under the current model, `chunk` tokens at a time.

    Arguments as in `restricted_linear_cross_entropy`; any sets do, empty ones too. Both results
    are (N,), float32 or float64 as there, 0 at ignored targets. log_outside is -inf where a set
    is the whole vocabulary, and None without candidates. Online logsumexp over the vocabulary:
    the largest tensor is (N, chunk).
    """
    _check_inputs(hidden, weight, bias, logit_map, candidates, targets, ignore_index)
    check_whole("chunk", chunk)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    n, vocab = hidden.shape[0], weight.shape[0]
    live = targets != ignore_index
    if (live & ((targets < 0) | (targets >= vocab))).any():
        raise ValueError(f"targets must lie in [0, {vocab}) or be {ignore_index} (ignore_index)")
    states = hidden.to(_computed_in(hidden, weight))  # (N, d)
    log_z = states.new_full((n,), -torch.inf)
    log_outside, z_gold = log_z.clone(), torch.zeros_like(log_z)
    rows = None if candidates is None else candidates.rows
    for start in range(0, vocab, chunk):
        ids = torch.arange(start, min(start + chunk, vocab), device=weight.device)
        z = _finish(block_logits(states, weight, ids), bias, ids, logit_map)  # (N, chunk)
        log_z = torch.logaddexp(log_z, z.logsumexp(1))
        here = (live & (targets >= start) & (targets < start + chunk)).nonzero().squeeze(1)
        z_gold[here] = z[here, targets[here] - start]
        if candidates is not None:
            inside = (candidates.ids >= start) & (candidates.ids < start + chunk)  # (nnz,)
            z[rows[inside], candidates.ids[inside] - start] = -torch.inf
            log_outside = torch.logaddexp(log_outside, z.logsumexp(1))
    return Probe(
        cross_entropy=(log_z - z_gold).where(live, 0),
        log_outside=None if candidates is None else (log_outside - log_z).where(live, 0),
    )


def ewc_penalty(
    params: Mapping[str, Tensor],
    anchor: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor],
    strength: float,
) -> Tensor:
    """strength / 2 * sum F (theta - theta_0)^2 over all named parameters (EWC).

    The three mappings have the same names and shapes; differentiable in `params`, computed in
    float32 or float64. ValueError where names or shapes differ or nothing is named.
    """
    check_number("strength", strength)
    for mapping, given in (("params", params), ("anchor", anchor), ("fisher", fisher)):
        check_type(mapping, given, Mapping, "a mapping from names to tensors")
    names = [set(params), set(anchor), set(fisher)]
    if unshared := set.union(*names) - set.intersection(*names):
        raise ValueError(f"params, anchor and fisher must share their names: {sorted(unshared)}")
    if not params:
        raise ValueError("params must name at least one tensor")
    total = 0.0
    for name, theta in params.items():
        if not theta.shape == anchor[name].shape == fisher[name].shape:
            raise ValueError(f"params, anchor and fisher of {name!r} must have one shape")
        dtype = torch.promote_types(theta.dtype, torch.float32)
        drift = theta.to(dtype) - anchor[name].to(dtype)
        total = total + (fisher[name].to(dtype) * drift.square()).sum()
    return strength / 2 * total


def _computed_in(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """float32 at least."""
    return torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)


def _finish(z: Tensor, bias: Tensor | None, ids: Tensor, logit_map: LogitMap | None) -> Tensor:
    """What the model does to the products z of the tokens `ids`, its last dimension."""
    if bias is not None:
        # embedding, not indexing: its backward adds repeated tokens in one fixed order.
        z = z + F.embedding(ids, bias.to(z.dtype)[:, None]).squeeze(-1)
    if logit_map is None:
        return z
    mapped = logit_map(z)
    if not isinstance(mapped, Tensor) or mapped.shape != z.shape:
        raise ValueError(f"logit_map must be elementwise, keep the shape {tuple(z.shape)}")
    return mapped.to(z.dtype)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _check_inputs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    logit_map: LogitMap | None,
    candidates: Candidates | None,
    targets: Tensor,
    ignore_index: int,
) -> None:
    for name, matrix in (("hidden", hidden), ("weight", weight)):
        check_tensor(name, matrix)
        if not matrix.is_floating_point():
            raise ValueError(f"{name} must be floating, got {matrix.dtype}")
    shapes = tuple(hidden.shape), tuple(weight.shape)
    if not len(shapes[0]) == len(shapes[1]) == 2 or shapes[0][1] != shapes[1][1] or 0 in shapes[1]:
        raise ValueError(
            f"hidden must be (N, d) and weight (V, d), V and d > 0; got {shapes[0]} and {shapes[1]}"
        )
    check_vector("targets", targets, len(hidden), torch.int64)
    check_whole("ignore_index", ignore_index)
    if bias is not None:
        check_vector("bias", bias, len(weight))
    if logit_map is not None:
        check_type("logit_map", logit_map, Callable, "a function of logits")
    others = {"weight": weight, "bias": bias, "targets": targets}
    if candidates is not None:
        check_type("candidates", candidates, Candidates, "a Candidates")
        if len(candidates) != len(hidden):
            raise ValueError(f"{len(candidates)} candidate rows for {len(hidden)} of hidden")
        candidates.check(len(weight))
        others["candidates"] = candidates.ids
    for name, other in others.items():
        if other is not None and other.device != hidden.device:
            raise ValueError(f"{name} must lie on {hidden.device} as hidden, not {other.device}")


def _check_negatives(negatives: Tensor, used: Tensor, vocab: int) -> None:
    check_tensor("negatives", negatives)
    if negatives.dtype != torch.int64 or negatives.ndim != 1:
        raise ValueError(
            f"negatives must be int64 (M,), got {negatives.dtype} {tuple(negatives.shape)}"
        )
    if not len(negatives) and len(used) < vocab:
        raise ValueError(f"no negatives, though {vocab - len(used)} tokens lie outside the union")
    if ((negatives < 0) | (negatives >= vocab)).any():
        raise ValueError(f"negatives must lie in [0, {vocab})")
    if len(negatives.unique()) < len(negatives):
        raise ValueError("negatives must be distinct")
    if torch.isin(negatives, used).any():
        raise ValueError("negatives must lie outside the union of the candidates")
