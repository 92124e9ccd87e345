"""Elastic weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796), the
Fisher taken on general data at the base model."""

from typing import ClassVar, Literal

from lrmoclip.edge.typed import Positive
from lrmoclip.methods.axes import Need, Penalty


class Ewc(Penalty):
    """strength / 2 * sum F (theta - theta_0)^2."""

    name: Literal["ewc"] = "ewc"
    strength: Positive

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FISHER})
    state: ClassVar[int] = 2  # the anchor and the Fisher
    passes: ClassVar[float] = 12

    def start(self, parameters, fisher):
        from lrmoclip.core import sharding
        from lrmoclip.core.losses import ewc_penalty

        anchor = {name: p.detach().clone() for name, p in parameters.items()}
        weights = {name: sharding.shard_like(fisher[name], p) for name, p in parameters.items()}

        def penalty():
            mine = [
                {name: sharding.local(tensor) for name, tensor in tensors.items()}
                for tensors in (parameters, anchor, weights)
            ]
            return ewc_penalty(*mine, self.strength)

        return penalty
