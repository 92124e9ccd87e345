"""MoClip, one tensor at a time, as the paper's equations read. No groups, no state_dict, no speed.

Operations follow the order of `core.optim` on whole tensors, so that the two agree to the bit on
one thread.
"""

import math

import torch
from torch import Tensor

CHUNK = 2**17  # of a sum, on one thread


class MoClipLoop:
    def __init__(
        self,
        params: list[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        max_angle: float = 90.0,
        weight_decay: float = 0.0,
        step: str = "atan2",
        a: float = 4 / math.pi,
        b: float = 1.0,
        eps: float = 1e-8,
    ) -> None:
        self.params, self.lr, self.betas, self.max_angle = params, lr, betas, max_angle
        self.weight_decay, self.kind, self.a, self.b, self.eps = weight_decay, step, a, b, eps
        self.m = [torch.zeros_like(p) for p in params]
        self.v = [torch.zeros_like(p) for p in params]
        self.t = 0

    @torch.no_grad()
    def step(self, grads: list[Tensor]) -> None:
        self.t += 1
        beta1, beta2 = self.betas
        correct1, correct2 = 1 - beta1**self.t, math.sqrt(1 - beta2**self.t)
        for i, (theta, g) in enumerate(zip(self.params, grads, strict=True)):
            g = capped(g, self.m[i], self.max_angle)
            self.m[i] = m = self.m[i].lerp(g, 1 - beta1)  # beta1 m + (1 - beta1) g
            self.v[i] = v = self.v[i].lerp(g * g, 1 - beta2)
            theta.add_(theta, alpha=-self.lr * self.weight_decay)
            if self.kind == "atan2":
                # atan2(m_hat, b sqrt(v_hat)); a positive factor on both does not change it.
                move = torch.atan2(m, v.sqrt() * (self.b * correct1 / correct2))
                theta.add_(move, alpha=-self.lr * self.a)
            else:
                theta.addcdiv_(m, v.sqrt() / correct2 + self.eps, value=-self.lr / correct1)


def capped(g: Tensor, m: Tensor, max_angle: float) -> Tensor:
    """g turned to `max_angle` from m, in their plane, at its norm; g itself where it is nearer."""
    dot, norm_g, norm_m = summed(g, m), math.sqrt(summed(g, g)), math.sqrt(summed(m, m))
    if norm_g == 0 or norm_m == 0:
        return g
    cap, along = math.radians(max_angle), dot / norm_m
    across = math.sqrt(max(0.0, summed(g, g) - along**2))  # |g| sin(angle)
    if degrees(across, along) > max_angle and math.sin(math.atan2(across, along)) < 0.5:
        rest = g.sub(m, alpha=dot / summed(m, m))
        across = math.sqrt(summed(rest, rest))
    if (
        degrees(across, along) <= max_angle
        or across <= math.sqrt(torch.finfo(g.dtype).eps) * norm_g
    ):
        return g  # within the cap, or antiparallel: there is no plane
    lean = across / math.tan(cap) / norm_m - dot / summed(m, m)
    return g.add(m, alpha=lean) * (math.sin(cap) * norm_g / across)


def degrees(across: float, along: float) -> float:
    return math.degrees(math.atan2(across, along))


def summed(x: Tensor, y: Tensor) -> float:
    """The sum of products, a chunk at a time."""
    chunks = zip(x.flatten().split(CHUNK), y.flatten().split(CHUNK), strict=True)
    return sum(torch.dot(a, b).item() for a, b in chunks)
