"""AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), torch's."""

from typing import ClassVar, Literal

from lrmoclip.methods.axes import Optimizer


class AdamW(Optimizer):
    name: Literal["adamw"] = "adamw"

    state: ClassVar[int] = 2
    passes: ClassVar[float] = 4

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        import torch

        return torch.optim.AdamW(
            parameters.values(), lr=lr, betas=betas, weight_decay=weight_decay, fused=True
        )
