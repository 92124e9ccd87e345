"""Distillation from the base's stored most probable tokens, the student's softmax being the full
one (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, with the teacher cut to its top K):

    loss_t = -(1 - weight) log p_y + weight * sum_j q_j (log q_j - log p_j), j in S_t

with q the base's stored probabilities renormalised over the position's set S_t, and p the model's
over the whole vocabulary: what p puts outside of S_t costs as it does in cross-entropy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from lrmoclip.edge.typed import PositiveShare
from lrmoclip.methods.axes import Context, Loss, Need, Objective, Shape
from lrmoclip.methods.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.data.batches import Encoded


class TopkDistill(Reading, Objective):
    """weight: of the divergence, cross-entropy having the rest."""

    name: Literal["topk_distill"] = "topk_distill"
    weight: PositiveShare

    needs: ClassVar[frozenset[Need]] = frozenset({Need.STORE})

    def start(self, data: "Sequence[Encoded]") -> Loss:
        return Loss(self._loss)

    def _loss(self, context: Context) -> "Tensor":
        import torch.nn.functional as F

        from lrmoclip.core.heads import supervised_logits

        batch, sets = context.batch, context.sets
        logits = supervised_logits(context.model, batch.input_ids, batch.supervised)
        mine = logits.float().log_softmax(1)  # (N, V)
        log_q = renormalised(sets)  # (nnz,)
        apart = F.kl_div(mine[sets.rows, sets.ids], log_q, log_target=True, reduction="sum")
        gold = F.nll_loss(mine, batch.gold)
        return (1 - self.weight) * gold + self.weight * apart / max(1, len(sets))

    def values(self, positions: float, shape: Shape, set_size: float) -> float:
        """Those of `full`, and the sets' own."""
        return 3 * positions * shape.vocabulary + 3 * positions * set_size


def renormalised(sets: "Candidates") -> "Tensor":
    """(nnz,): the stored log-probabilities, each row's brought to a sum of one."""
    import torch

    peak = torch.segment_reduce(sets.logp, "max", offsets=sets.offsets)  # (N,)
    beside = sets.logp - peak[sets.rows]
    total = torch.segment_reduce(beside.exp(), "sum", offsets=sets.offsets)
    return beside - total.log()[sets.rows]
