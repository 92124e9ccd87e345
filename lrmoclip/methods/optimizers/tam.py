"""Torque-aware momentum in AdamW, AdaTAMW (Malviya et al. 2024, https://arxiv.org/abs/2412.18790):
a gradient counts for less in the momentum of its tensor, the less the two have agreed of late.

    s = gamma s + (1 - gamma) cos(g, m)      d = (1 + s) / 2
    m = beta1 m + (epsilon + d) g            v = beta2 v + (1 - beta2) g^2
    theta -= lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * theta)

with m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t) as in Adam; cos is 0 where m or g is."""

from functools import cache
from typing import ClassVar, Literal

from lrmoclip.edge.typed import NotNegative, Share
from lrmoclip.methods.axes import Optimizer


class TAM(Optimizer):
    """smoothing is gamma, epsilon what each gradient counts at least.

    The momentum is a sum, not an average: where d is 1 a step is 1 / (1 - beta1) times AdamW's,
    where gradient and momentum are at right angles half of that. Its rate is so much lower.
    """

    name: Literal["tam"] = "tam"
    smoothing: Share = 0.9
    epsilon: NotNegative = 1e-8

    state: ClassVar[int] = 2  # and a value for each tensor
    passes: ClassVar[float] = 16

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8}
        own = {"smoothing": self.smoothing, "epsilon": self.epsilon}
        return _kind()(parameters.values(), settings | own)

    def measures(self, optimizer) -> dict[str, float]:
        """The mean of the tensors' damping d."""
        found = [state["alignment"] for state in optimizer.state.values()]
        return {"damping": sum((1 + s.item()) / 2 for s in found) / len(found)} if found else {}


@cache
def _kind():
    import torch

    from lrmoclip.core.sharding import whole

    class TorqueAware(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._move(p, p.grad, self.state[p], group)

        def _move(self, p, g, state, group):
            if not state:
                state["step"] = torch.tensor(0.0)
                state["alignment"] = torch.zeros((), dtype=p.dtype, device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            (beta1, beta2), t = group["betas"], state["step"].item()
            m, v, s = state["exp_avg"], state["exp_avg_sq"], state["alignment"]
            lengths = whole(g.norm()) * whole(m.norm())  # of a sharded tensor, all of it
            cosine = whole((g * m).sum()) / lengths
            s.lerp_(torch.where(lengths > 0, cosine, 0), 1 - group["smoothing"])
            m.mul_(beta1).add_(g, alpha=group["epsilon"] + (1 + s.item()) / 2)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            below = v.sqrt().div_((1 - beta2**t) ** 0.5).add_(group["eps"])
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.addcdiv_(m, below, value=-group["lr"] / (1 - beta1**t))

    return TorqueAware
