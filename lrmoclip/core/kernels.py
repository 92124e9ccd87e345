"""Logits of selected tokens, from hidden states and the output matrix, each with its own backward.

`pair_logits` multiplies only the pairs (position, token) that the sets name, `block_logits` all
positions by a list of tokens. Both read the named rows of the matrix and no others, forward and
backward, and leave the rest of its gradient untouched.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.once import Once, once

# A product in a block costs less than one of a sparse pair: the block is the faster way until it
# holds more than so many products for each pair. Measured on a CPU (results/benchmarks.csv,
# `crossover`): about 4 at d of 576 and 1,024, about 10 at 128, where little is at stake.
BLOCK_PER_PAIR = 4
ROWS_AT_A_TIME = 1024  # of a dense gradient; bounds what is held beside it


class Pairs(NamedTuple):
    """Pairs of N positions and the distinct tokens `used`, position by position.

    used (U,) int64: token ids; local (nnz,) int64: each pair's place in `used`; rows (nnz,) int64:
    its position; offsets (N + 1,) int64: where each position's pairs begin.
    """

    used: Tensor
    local: Tensor
    rows: Tensor
    offsets: Tensor

    @property
    def fill(self) -> float:
        """Products of the whole block for each pair, at least 1."""
        return (len(self.offsets) - 1) * len(self.used) / max(1, len(self.local))

    def by_token(self) -> tuple[Tensor, Tensor]:
        """The order of the pairs by token and, within one, by position, and the positions in that
        order; both (nnz,) int64.

        ValueError where a position names a token twice: its set would weigh it twice.
        """
        tokens, order = self.local.sort(stable=True)
        rows = self.rows[order]
        twice = (tokens[1:] == tokens[:-1]) & (rows[1:] == rows[:-1])
        if twice.any():
            place = twice.nonzero()[0]
            row, token = int(rows[place]), int(self.used[tokens[place]])
            raise ValueError(f"the set of supervised row {row} holds token {token} twice")
        return order, rows


def pair_logits(
    states: Tensor, weight: Tensor, pairs: Pairs, *, path: str = "auto", sparse_grad: bool = False
) -> Tensor:
    """z_e = states[rows_e] . weight[used[local_e]] -> (nnz,) in the dtype of states.

    states (N, d) float32 or float64, weight (V, d) floating. path: "gather" multiplies the pairs,
    "union" the whole block, from which it picks them; "auto" the one that is faster. sparse_grad:
    the gradient of weight is sparse COO, else as in `_weight_gradient`. ValueError as in
    `Pairs.by_token`.
    """
    by_token = pairs.by_token()
    if path == "auto":
        path = "union" if pairs.fill < BLOCK_PER_PAIR else "gather"
    if path == "union":
        block = block_logits(states, weight, pairs.used, sparse_grad=sparse_grad)
        return _Pick.apply(block, pairs.rows, pairs.local)
    return _PairLogits.apply(
        states, weight, pairs.used, pairs.local, pairs.offsets, *by_token, sparse_grad
    )


def block_logits(
    states: Tensor, weight: Tensor, used: Tensor, *, sparse_grad: bool = False
) -> Tensor:
    """states @ weight[used].T -> (N, U) in the dtype of states; arguments as in `pair_logits`."""
    return _BlockLogits.apply(states, weight, used, sparse_grad)


class _PairLogits(Once):
    @staticmethod
    def forward(states, weight, used, local, offsets, order, rows, sparse_grad):
        if not len(local):
            return states.new_empty(0)
        table, index = _lookup(weight, used, local, states.dtype)
        with warnings.catch_warnings():  # one that sparse CSR is in beta
            warnings.simplefilter("ignore")
            # Zero times the mask, plus the products at its places and at no others.
            mask = torch.sparse_csr_tensor(
                offsets,
                index,
                states.new_zeros(len(index)),
                (len(states), len(table)),
                check_invariants=False,
            )
            return torch.sparse.sampled_addmm(mask, states, table.T, beta=0).values()

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.sparse_grad = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once
    def backward(ctx, grad):
        states, weight, used, local, offsets, order, rows = ctx.saved_tensors
        of_states = of_weight = None
        if ctx.needs_input_grad[0]:
            table, index = _lookup(weight, used, local, grad.dtype)
            of_states = _weighted_sums(table, index, grad, offsets)
        if ctx.needs_input_grad[1]:
            # The same sums by token, each token's added in the order of its positions.
            factors = grad[order]
            starts = F.pad(torch.bincount(local, minlength=len(used)).cumsum(0), (1, 0))

            def by_token(first: int, last: int) -> Tensor:
                entries = slice(starts[first], starts[last])
                within = starts[first : last + 1] - starts[first]
                return _weighted_sums(states, rows[entries], factors[entries], within)

            of_weight = _weight_gradient(weight, used, by_token, ctx.sparse_grad)
        return of_states, of_weight, None, None, None, None, None, None


class _BlockLogits(Once):
    @staticmethod
    def forward(states, weight, used, sparse_grad):
        with _no_autocast(states):
            return states @ _table(weight, used, states.dtype).T

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.sparse_grad = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once
    def backward(ctx, grad):
        states, weight, used = ctx.saved_tensors
        of_states = of_weight = None
        with _no_autocast(states):
            if ctx.needs_input_grad[0]:
                of_states = grad @ _table(weight, used, grad.dtype)
            if ctx.needs_input_grad[1]:
                of_weight = _weight_gradient(
                    weight,
                    used,
                    lambda first, last: grad[:, first:last].T @ states,
                    ctx.sparse_grad,
                )
        return of_states, of_weight, None, None


class _Pick(Once):
    """block[rows, local] of distinct places: what indexing does, without its atomic additions."""

    @staticmethod
    def forward(block, rows, local):
        return block[rows, local]

    @staticmethod
    def setup_context(ctx, inputs, output):
        block, *places = inputs
        ctx.save_for_backward(*places)
        ctx.shape = block.shape

    @staticmethod
    @once
    def backward(ctx, grad):
        rows, local = ctx.saved_tensors
        of_block = grad.new_zeros(ctx.shape)
        of_block[rows, local] = grad
        return of_block, None, None


def _table(weight: Tensor, used: Tensor, dtype: torch.dtype) -> Tensor:
    """(U, d): the rows that are used, in the dtype of the computation."""
    return weight.index_select(0, used).to(dtype)


def _lookup(
    weight: Tensor, used: Tensor, local: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """A matrix in `dtype` and the row of it that each pair reads: weight itself, if it can be."""
    if weight.dtype == dtype:
        return weight, used[local]
    return _table(weight, used, dtype), local


def _weighted_sums(table: Tensor, index: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """(R, d): for each row r, sum of factors_e table[index_e] over e in offsets[r]:offsets[r + 1].

    A sparse matrix times a dense one; no row of `table` is copied out.
    """
    return F.embedding_bag(
        index,
        table.detach(),  # else it keeps what a backward of its own would need
        offsets,
        mode="sum",
        per_sample_weights=factors,
        include_last_offset=True,
    )


def _weight_gradient(
    weight: Tensor, used: Tensor, rows: Callable[[int, int], Tensor], sparse_grad: bool
) -> Tensor:
    """The gradient of weight, nothing but `rows(first, last)` at the distinct used[first:last].

    Dense, it is written once, some rows at a time, and becomes the parameter's `.grad`. A
    parameter that has a dense `.grad` is given a sparse one even so, which autograd adds to the
    rows in place: a dense one would be a second V x d, and an addition over all of it.
    """
    held = weight.grad if weight.is_leaf else None
    if sparse_grad or (held is not None and held.layout == torch.strided):
        # Not flagged as coalesced, which would bind it to rising ids.
        values = rows(0, len(used)).to(weight.dtype)
        return torch.sparse_coo_tensor(used[None], values, weight.shape, check_invariants=False)
    dense = torch.zeros_like(weight)
    for first in range(0, len(used), ROWS_AT_A_TIME):
        last = min(first + ROWS_AT_A_TIME, len(used))
        dense.index_copy_(0, used[first:last], rows(first, last).to(weight.dtype))
    return dense


def _no_autocast(tensor: Tensor):
    """Products here are in float32 at least, whatever surrounds the call."""
    return torch.autocast(tensor.device.type, enabled=False)
