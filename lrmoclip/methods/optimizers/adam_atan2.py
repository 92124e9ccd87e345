"""Adam-atan2 (Everett et al. 2024, https://arxiv.org/abs/2407.05872): the step of MoClip whose
momentum is never turned, which tells what turning it adds."""

from typing import ClassVar, Literal

from lrmoclip.methods.axes import Optimizer


class AdamAtan2(Optimizer):
    name: Literal["adam_atan2"] = "adam_atan2"

    state: ClassVar[int] = 2
    passes: ClassVar[float] = 15

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        from lrmoclip.core.optim import MoClip

        return MoClip(
            parameters.values(), lr=lr, betas=betas, weight_decay=weight_decay, max_angle=180.0
        )
