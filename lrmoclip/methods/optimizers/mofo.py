"""MoFO, the Momentum-Filtered Optimizer (Chen et al. 2024, https://arxiv.org/abs/2407.20999): AdamW
that, of each tensor, moves only the entries whose momentum is largest.

    theta -= lr * ([|m| >= c] m_hat / (sqrt(v_hat) + eps) + weight_decay * theta)

with Adam's moments m and v of all entries, and c the k-th largest |m| of the tensor, k the share
`fraction` of its entries, rounded down. Bias correction would not change which these are."""

from functools import cache
from typing import ClassVar, Literal

from lrmoclip.edge.typed import PositiveShare
from lrmoclip.methods.axes import Optimizer


class MoFO(Optimizer):
    """fraction: of a tensor's entries that move in a step; 0.15 in the authors' scripts.

    Biases and norms (fewer than two dimensions) move whole, as do the entries that tie with the
    k-th. The decay is that of all methods: of every entry, filtered or not, norms too, which the
    authors leave out; their scripts have none.
    """

    name: Literal["mofo"] = "mofo"
    fraction: PositiveShare = 0.15

    state: ClassVar[int] = 2
    passes: ClassVar[float] = 200  # on a CPU, nearly all of it the search for the k-th

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8}
        return _kind()(parameters.values(), settings | {"fraction": self.fraction})


@cache
def _kind():
    import torch

    from lrmoclip.core.sharding import local, whole

    class Filtered(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._move(p, self.state[p], group)

        def _move(self, p, state, group):
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            (beta1, beta2), t = group["betas"], state["step"].item()
            x, g, m, v = map(local, (p, p.grad, state["exp_avg"], state["exp_avg_sq"]))
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            below = v.sqrt().div_((1 - beta2**t) ** 0.5).add_(group["eps"])
            moving = m
            if p.dim() > 1:
                sizes = whole(state["exp_avg"]).abs().flatten()  # of a sharded tensor, all of it
                k = max(1, int(group["fraction"] * len(sizes)))
                least = sizes.kthvalue(len(sizes) - k + 1).values
                moving = torch.where(m.abs() >= least, m, 0)
            x.mul_(1 - group["lr"] * group["weight_decay"])
            x.addcdiv_(moving, below, value=-group["lr"] / (1 - beta1**t))

    return Filtered
