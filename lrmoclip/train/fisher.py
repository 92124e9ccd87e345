"""The Fisher diagonal of a model, for EWC."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.heads import supervised_logits
from lrmoclip.core.precision import autocast
from lrmoclip.data.batches import Batch

KIND = "fisher"  # of artefact


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
