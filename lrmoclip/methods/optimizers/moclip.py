"""MoClip (`lrmoclip.core.optim`)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lrmoclip.methods.axes import Optimizer


class MoClip(Optimizer):
    """max_angle in degrees; step as in `lrmoclip.MoClip`."""

    name: Literal["moclip"] = "moclip"
    max_angle: Annotated[float, Field(gt=0, le=180)] = 90.0
    step: Literal["atan2", "adam"] = "atan2"

    state: ClassVar[int] = 2
    passes: ClassVar[float] = 18

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        from lrmoclip.core.optim import MoClip as Built

        return Built(
            parameters.values(), lr=lr, betas=betas, weight_decay=weight_decay,
            max_angle=self.max_angle, step=self.step, track_angles=telemetry,
        )  # fmt: skip

    def measures(self, optimizer) -> dict[str, float]:
        """The share of tensors that were turned, the median angle of gradient and momentum in
        degrees, and how many tensors had no angle since something in them is not finite."""
        [seen] = optimizer.angle_statistics(quantiles=(0.5,))
        found = {"not_finite": seen["not_finite"]} if seen["not_finite"] else {}
        if not seen["tensors"]:
            return found
        return found | {"clip_rate": seen["clip_rate"], "median_angle": seen["quantiles"][0]}
