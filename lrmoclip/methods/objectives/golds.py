"""Candidate sets united with the tokens that are gold anywhere in the training data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.data.batches import Batch, Encoded


def tokens_of(data: "Sequence[Encoded]") -> "Tensor":
    """(A,) int64: the distinct targets of all supervised positions, rising."""
    import torch

    return torch.cat([each.gold for each in data]).unique()


def united(tokens: "Tensor", batch: "Batch", stored: "Candidates") -> "Candidates":
    """Every row with those of `tokens` (A,), rising, behind it that it does not hold.

    Of what joins, the base's probability is unknown: it stands as zero, and log_outside, as it is
    stored, still counts it.
    """
    import torch

    from lrmoclip.core.candidates import offsets_of

    tokens, rows = tokens.to(stored.ids.device), stored.rows
    place = torch.searchsorted(tokens, stored.ids).clamp(max=len(tokens) - 1)  # (nnz,)
    known = tokens[place] == stored.ids
    missing = torch.ones(len(stored), len(tokens), dtype=torch.bool, device=tokens.device)
    missing[rows[known], place[known]] = False
    row, column = missing.nonzero(as_tuple=True)
    order = torch.cat([rows, row]).argsort(stable=True)
    unknown = stored.logp.new_full((len(row),), -torch.inf)
    return replace(
        stored,
        ids=torch.cat([stored.ids, tokens[column]])[order],
        offsets=offsets_of(stored.sizes + missing.sum(1)),
        logp=torch.cat([stored.logp, unknown])[order],
        prob=torch.cat([stored.prob, unknown.exp()])[order],
    )
