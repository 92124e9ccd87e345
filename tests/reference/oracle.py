"""The equations of Stage 0 and Stage 1, dense, in float64, one position at a time.

Written to be read beside the equations, not to be fast. Probabilities alone are the float32
softmax, since the definition of S_t asks for it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    ids: list[int]
    gold_forced: bool
    logp: Tensor  # (|S_t|,) float64
    log_z: float
    log_outside: float


def select_row(logits: Tensor, gold: int, coverage: float, k_min: int, k_max: int) -> Row:
    """S_t: the smallest covering set, clipped to [k_min, k_max], united with gold."""
    vocab = len(logits)
    p = logits.float().softmax(0).tolist()
    by_probability = sorted(range(vocab), key=lambda j: (-p[j], j))

    ids, total = [], 0.0
    for j in by_probability:
        covered = total >= coverage and len(ids) >= k_min
        if covered or len(ids) == k_max:
            break
        ids.append(j)
        total += p[j]
    gold_forced = gold not in ids
    if gold_forced:
        ids.append(gold)

    z = logits.float().double()
    outside = [j for j in range(vocab) if j not in ids]
    log_z = z.logsumexp(0)
    return Row(
        ids=ids,
        gold_forced=gold_forced,
        logp=z[ids] - log_z,
        log_z=log_z.item(),
        log_outside=(z[outside].logsumexp(0) - log_z).item() if outside else -math.inf,
    )


def dense_logits(hidden, weight, bias=None, logit_map=None) -> Tensor:
    """(N, V) float64."""
    z = hidden.double() @ weight.double().T
    z = z if bias is None else z + bias.double()
    return z if logit_map is None else logit_map(z)


def restricted_losses(z: Tensor, sets: list[list[int]], targets: list[int]) -> Tensor:
    """(N,): logsumexp(z_j, j in S_t) - z_y, "own"; zero where the target is negative."""
    losses = []
    for t, gold in enumerate(targets):
        losses.append(z[t, sets[t]].logsumexp(0) - z[t, gold] if gold >= 0 else 0 * z[t, 0])
    return torch.stack(losses)


def union_losses(z, sets, targets, negatives=()) -> Tensor:
    """(N,): logsumexp(z_j + c_j, j in U and negatives) - z_y, c = log((V - |U|) / M) or 0."""
    union = sorted(set().union(*sets))
    losses = []
    for t, gold in enumerate(targets):
        terms = [z[t, j] for j in union]
        terms += [z[t, j] + math.log((z.shape[1] - len(union)) / len(negatives)) for j in negatives]
        losses.append(torch.stack(terms).logsumexp(0) - z[t, gold] if gold >= 0 else 0 * z[t, 0])
    return torch.stack(losses)
