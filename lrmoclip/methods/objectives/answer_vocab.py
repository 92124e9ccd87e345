"""Cross-entropy over the tokens that are gold anywhere in the training data: no Stage 0, no store,
and no product with any other row of the head. With A these tokens,

    loss_t = logsumexp(z_j, j in A) - z_y"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from lrmoclip.methods.axes import REPAIR, Context, Loss, Objective, Shape
from lrmoclip.methods.objectives.golds import tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.data.batches import Batch, Encoded


class AnswerVocab(Objective):
    name: Literal["answer_vocab"] = "answer_vocab"

    @property
    def family(self) -> str:
        return REPAIR

    def start(self, data: Sequence["Encoded"]) -> Loss:
        tokens = tokens_of(data)
        return Loss(partial(_loss, tokens), partial(_sets, tokens), len(tokens))

    def products(self, shape: Shape, set_size: float) -> float:
        """Of the whole head, as long as nothing is known of the data."""
        return shape.d * (set_size or shape.vocabulary)

    def values(self, positions: float, shape: Shape, set_size: float) -> float:
        size = set_size or shape.vocabulary
        return 3 * positions * size + 2 * size * shape.d


def _loss(tokens: "Tensor", context: Context) -> "Tensor":
    import torch
    import torch.nn.functional as F

    from lrmoclip.core.heads import head_of, supervised_hidden

    batch = context.batch
    hidden = supervised_hidden(context.model, batch.input_ids, batch.supervised)  # (N, d)
    head, tokens = head_of(context.model), tokens.to(hidden.device)
    rows = head._replace(
        weight=head.weight[tokens], bias=None if head.bias is None else head.bias[tokens]
    )
    return F.cross_entropy(rows.logits(hidden).float(), torch.searchsorted(tokens, batch.gold))


def _sets(tokens: "Tensor", batch: "Batch", stored: None) -> "Candidates":
    """The same set at each of the batch's supervised positions."""
    import torch

    from lrmoclip.core.candidates import Candidates

    count, device = len(batch.gold), batch.gold.device
    ids = tokens.to(device).repeat(count)
    offsets = torch.arange(count + 1, device=device) * len(tokens)
    unknown = torch.zeros(count, device=device)  # of the base, which nobody asked
    return Candidates(
        ids, offsets, unknown.bool(), torch.zeros(len(ids), device=device), unknown, unknown
    )
