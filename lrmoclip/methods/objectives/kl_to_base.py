"""Cross-entropy and, as reinforcement learning keeps a policy near its reference (Stiennon et al.
2020, https://arxiv.org/abs/2009.01325), the divergence from the frozen base at the same positions:

    loss_t = -log p_y + weight * sum_j b_j (log b_j - log p_j)

with p the model's and b the base's probabilities over the whole vocabulary."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from lrmoclip.edge.typed import Positive
from lrmoclip.methods.axes import Context, Loss, Need, Objective, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.data.batches import Encoded


class KlToBase(Objective):
    """weight: of the divergence, in nats as the cross-entropy is."""

    name: Literal["kl_to_base"] = "kl_to_base"
    weight: Positive

    needs: ClassVar[frozenset[Need]] = frozenset({Need.BASE})

    def start(self, data: "Sequence[Encoded]") -> Loss:
        return Loss(self._loss)

    def _loss(self, context: Context) -> "Tensor":
        import torch
        import torch.nn.functional as F

        from lrmoclip.core.heads import supervised_logits

        batch = context.batch
        inputs = (batch.input_ids, batch.supervised)
        with torch.no_grad():
            base = supervised_logits(context.base, *inputs).float().log_softmax(1)  # (N, V)
        mine = supervised_logits(context.model, *inputs).float().log_softmax(1)  # (N, V)
        divergence = F.kl_div(mine, base, log_target=True, reduction="batchmean")
        return F.nll_loss(mine, batch.gold) + self.weight * divergence

    def values(self, positions: float, shape: Shape, set_size: float) -> float:
        """The logits, log-probabilities and gradient of `full`, the base's and their difference."""
        return 5 * positions * shape.vocabulary
