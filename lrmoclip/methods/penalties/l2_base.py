"""A quadratic pull to where training began, the same for every weight: EWC without its Fisher, and
so without data."""

from typing import ClassVar, Literal

from lrmoclip.edge.typed import Positive
from lrmoclip.methods.axes import Penalty


class L2Base(Penalty):
    """strength / 2 * sum (theta - theta_0)^2 over what is trained: the base's weights, or an
    adapter's as they begin. strength: a knob to tune, in nats a squared weight."""

    name: Literal["l2_base"] = "l2_base"
    strength: Positive

    state: ClassVar[int] = 1  # the anchor
    passes: ClassVar[float] = 8

    def start(self, parameters, fisher):
        import torch

        from lrmoclip.core import sharding

        anchor = {name: p.detach().clone() for name, p in parameters.items()}

        def penalty():
            total = 0.0
            for name, parameter in parameters.items():
                theta, start = sharding.local(parameter), sharding.local(anchor[name])
                dtype = torch.promote_types(theta.dtype, torch.float32)
                total = total + (theta.to(dtype) - start.to(dtype)).square().sum()
            return self.strength / 2 * total

        return penalty
