"""Truncation without renormalisation, for claim C8:

    loss_t = log Z_t - z_y

with the base's own log Z_t as stored, a constant. Its gradient is that of -z_y alone: gold's logit
is pushed up at the same rate however probable gold is, no other token is pushed down, and the loss
has no lower bound. Of a set nothing is left but whether the base's own holds gold."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.core.heads import Head


def naive_losses(hidden: "Tensor", head: "Head", sets: "Candidates", gold: "Tensor") -> "Tensor":
    """(N,), of hidden (N, d) and gold (N,) int64."""
    return sets.log_z - logits_of(hidden, head, gold)


def logits_of(hidden: "Tensor", head: "Head", tokens: "Tensor") -> "Tensor":
    """(N,) in float32 at least: of each position with one of `tokens` (N,)."""
    import torch
    import torch.nn.functional as F

    dtype = torch.promote_types(hidden.dtype, torch.float32)
    # embedding, not indexing: its backward adds repeated tokens in one fixed order.
    rows = F.embedding(tokens, head.weight).to(dtype)  # (N, d)
    z = (hidden.to(dtype) * rows).sum(1)
    if head.bias is not None:
        z = z + F.embedding(tokens, head.bias[:, None]).squeeze(1)
    return z if head.logit_map is None else head.logit_map(z)
