"""AdaMuon (Si, Zhang and Shen 2025, https://arxiv.org/abs/2507.11005, Algorithm 1): Muon with a
second moment, and a momentum that is reduced to its signs before it is orthogonalised.

    M = beta M + G                     O = newton_schulz(sign(M))
    V = beta V + (1 - beta) O * O      U = O / (sqrt(V) + eps)
    W -= lr * (0.2 sqrt(m n) / |U| * U + weight_decay * W)        of W (m, n), |U| Frobenius

so that the step has the root mean square 0.2 lr, about that of Adam's: rates carry over."""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lrmoclip.methods.axes import Optimizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

EPS = 1e-8


class AdaMuon(Optimizer):
    """momentum is beta, of both moments. ns_steps: iterations of Newton-Schulz.

    The body's matrices, or an adapter's; embeddings, the head and what is no matrix move by AdamW
    with the run's betas. Without Nesterov's look ahead, which the authors' code for GPT-2 has and
    Algorithm 1 has not.
    """

    name: Literal["adamuon"] = "adamuon"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    ns_steps: Annotated[int, Field(ge=1, le=99)] = 5

    state: ClassVar[int] = 2
    passes: ClassVar[float] = 800  # on a CPU, at a width of 576, which it grows with

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        from lrmoclip.core.sharding import shard_like, whole

        def move(m: "Tensor", state: dict) -> "Tensor":
            o = shard_like(newton_schulz(whole(m).sign(), self.ns_steps), m)
            v = _kept(state, "exp_avg_sq", m)
            v.mul_(self.momentum).addcmul_(o, o, value=1 - self.momentum)
            u = o / (v.sqrt() + EPS)
            return u * (0.2 * math.sqrt(m.numel()) / (whole(u.norm()).item() + EPS))

        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        return matrices_apart(model, parameters, move, momentum=self.momentum, **settings)


def newton_schulz(matrix: "Tensor", steps: int) -> "Tensor":
    """Nearly the orthogonal factor U V' of a matrix U S V': singular values, those that are not
    tiny beside the largest, come to lie between 0.7 and 1.2 in five steps. Zero stays zero."""
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's, https://kellerjordan.github.io/posts/muon/
    x = matrix.mT if len(matrix) > len(matrix.mT) else matrix
    x = x / x.norm().clamp(min=1e-30)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if len(matrix) > len(matrix.mT) else x


def matrices_apart(
    model: "nn.Module",
    parameters: "Mapping[str, nn.Parameter]",
    move: "Callable[[Tensor, dict], Tensor]",
    *,
    momentum: float,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> "torch.optim.Optimizer":
    """One optimizer of two groups: matrices of the body step against `move(M, state)`, M being
    the average of their gradients, the rest by AdamW. The decay is decoupled in both."""
    import torch

    head = getattr(model, "get_output_embeddings", lambda: None)()
    ends = [m for m in model.modules() if isinstance(m, torch.nn.Embedding) or m is head]
    outside = {p for module in ends for p in module.parameters()}
    groups = [{"params": [], "momentum": None}, {"params": [], "momentum": momentum}]
    for p in parameters.values():
        groups[p.dim() == 2 and p not in outside]["params"].append(p)
    return _kind()(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, move)


@cache
def _kind():
    import torch

    class MatricesApart(torch.optim.Optimizer):
        def __init__(self, groups, defaults, move):
            super().__init__(groups, defaults)
            self.move = move

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    if group["momentum"] is None:
                        update = _adam(p.grad, self.state[p], *group["betas"])
                    else:
                        m = _kept(self.state[p], "momentum_buffer", p)
                        update = self.move(m.lerp_(p.grad, 1 - group["momentum"]), self.state[p])
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"])

    return MatricesApart


def _adam(g: "Tensor", state: dict, beta1: float, beta2: float) -> "Tensor":
    import torch

    m, v = _kept(state, "exp_avg", g), _kept(state, "exp_avg_sq", g)
    state["step"] = state.get("step", torch.tensor(0.0)) + 1
    t = state["step"].item()
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    return (m / (1 - beta1**t)).div_((v / (1 - beta2**t)).sqrt_().add_(EPS))


def _kept(state: dict, name: str, like: "Tensor") -> "Tensor":
    """A value of the state, zeros at first."""
    import torch

    if name not in state:
        state[name] = torch.zeros_like(like)
    return state[name]
