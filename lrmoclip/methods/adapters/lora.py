"""Low-rank adapters on every linear layer of the body (Hu et al. 2021,
https://arxiv.org/abs/2106.09685, by peft)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lrmoclip.edge.typed import Positive
from lrmoclip.methods.axes import Adapter, Shape


class Lora(Adapter):
    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, le=65_536)]
    alpha: Positive

    passes: ClassVar[int] = 4  # frozen weights need no gradient of their own; the adapters left out

    def apply(self, model):
        from peft import LoraConfig, get_peft_model

        return get_peft_model(
            model,
            LoraConfig(
                r=self.rank, lora_alpha=self.alpha, target_modules="all-linear", lora_dropout=0
            ),
        )

    def trained(self, shape: Shape) -> int:
        return self.rank * shape.low_rank
