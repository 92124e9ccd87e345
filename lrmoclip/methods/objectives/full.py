"""Cross-entropy over the whole vocabulary."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lrmoclip.methods.axes import Context, Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from lrmoclip.data.batches import Encoded


class Full(Objective):
    name: Literal["full"] = "full"

    def start(self, data: "Sequence[Encoded]") -> Loss:
        return Loss(cross_entropy)


def cross_entropy(context: Context) -> "Tensor":
    """Its mean at the supervised positions."""
    import torch.nn.functional as F

    from lrmoclip.core.heads import supervised_logits

    batch = context.batch
    logits = supervised_logits(context.model, batch.input_ids, batch.supervised)
    return F.cross_entropy(logits.float(), batch.gold)
