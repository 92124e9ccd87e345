"""The training objectives and penalties: functions of a model and a batch that return a loss.

An objective is looked up by the name on the method's `objective` axis."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.candidates import Candidates
from lrmoclip.core.heads import head_of, supervised_hidden, supervised_logits
from lrmoclip.core.losses import restricted_linear_cross_entropy
from lrmoclip.core.precision import autocast
from lrmoclip.data.batches import Batch


def full(model, batch: Batch, sets: None, dice: torch.Generator, **_) -> Tensor:
    """Mean cross-entropy over the whole vocabulary at the supervised positions."""
    logits = supervised_logits(model, batch.input_ids, batch.supervised)
    return F.cross_entropy(logits.float(), batch.gold)


def restricted(
    model,
    batch: Batch,
    sets: Candidates,
    dice: torch.Generator,
    denominator: str = "own",
    negatives: int = 0,
    **_,
) -> Tensor:
    """Mean of logsumexp(z_j, j in S_t) - z_y; `denominator` and `negatives` name its variants."""
    hidden = supervised_hidden(model, batch.input_ids, batch.supervised)  # (N, d)
    head = head_of(model)
    drawn = outside_union(sets.union(), len(head.weight), negatives, dice) if negatives else None
    return restricted_linear_cross_entropy(
        hidden,
        candidates=sets,
        targets=batch.gold,
        denominator=denominator,
        negatives=drawn,
        **head._asdict(),
    )


OBJECTIVES = {"full": full, "restricted": restricted}


def outside_union(union: Tensor, vocabulary: int, count: int, dice: torch.Generator) -> Tensor:
    """`count` distinct token ids (all, if fewer) drawn uniformly outside `union`, int64."""
    outside = torch.ones(vocabulary, dtype=torch.bool)
    outside[union.cpu()] = False
    ids = outside.nonzero().squeeze(1)
    return ids[torch.randperm(len(ids), generator=dice)[:count]].to(union.device)


def fisher_diagonal(
    model, batches: Iterator[Batch], dice: torch.Generator, precision: str = "float32"
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information at the model's parameters, float32 by parameter name.

    F_i = E[(d log p(y | x) / d theta_i)^2] over sequences, y drawn from the model's own
    distribution (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796). `batches` holds one
    sequence each, since squares of summed gradients are not sums of squares. A gradient is squared
    and let go as soon as it is whole, so that besides weights and squares one is held at a time.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {n: torch.zeros_like(p) for n, p in trained.items()}

    def take(name: str, parameter: Tensor) -> None:
        total[name] += parameter.grad.square()
        parameter.grad = None

    model.zero_grad()
    hooks = [p.register_post_accumulate_grad_hook(partial(take, n)) for n, p in trained.items()]
    count = 0
    try:
        for batch in batches:
            with autocast(precision, model.device):
                logits = supervised_logits(model, batch.input_ids, batch.supervised).float()
            shares = logits.detach().softmax(-1).cpu()
            drawn = torch.multinomial(shares, 1, generator=dice).squeeze(1).to(logits.device)
            F.cross_entropy(logits, drawn, reduction="sum").backward()
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    return {name: value.div_(max(count, 1)) for name, value in total.items()}
