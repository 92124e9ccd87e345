"""MoClip, one tensor at a time, as the paper's equations read. No groups, no state_dict, no speed.

Operations follow the order of `lrmoclip.optim`, so that the two agree to the bit.
"""

import math

import torch
from torch import Tensor


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
        for i, (theta, g) in enumerate(zip(self.params, grads, strict=True)):
            if self.max_angle < 180:
                g = capped(g, self.m[i], self.max_angle)
            self.m[i] = m = self.m[i].lerp(g, 1 - beta1)  # beta1 m + (1 - beta1) g
            self.v[i] = v = (self.v[i] * beta2).addcmul(g, g, value=1 - beta2)
            m_hat = m / (1 - beta1**self.t)
            root_v_hat = v.sqrt() / math.sqrt(1 - beta2**self.t)
            if self.kind == "atan2":
                move = torch.atan2(m_hat, root_v_hat * self.b) * self.a
            else:
                move = m_hat / (root_v_hat + self.eps)
            if self.weight_decay:
                theta.mul_(1 - self.lr * self.weight_decay)
            theta.add_(move, alpha=-self.lr)


def capped(g: Tensor, m: Tensor, max_angle: float) -> Tensor:
    """g turned to `max_angle` from m, in their plane, at its norm; g itself where it is nearer."""
    dot = (g * m).sum().item()
    norm_g, norm_m = g.norm().item(), m.norm().item()
    if norm_g == 0 or norm_m == 0:
        return g
    cosine = torch.tensor(dot / norm_g / norm_m, dtype=torch.float64).clamp(-1, 1)
    if cosine.acos().rad2deg() <= max_angle:
        return g
    across = g - m * (dot / norm_m / norm_m)
    if across.norm().item() <= math.sqrt(torch.finfo(g.dtype).eps) * norm_g:
        return g  # antiparallel: there is no plane
    cap = math.radians(max_angle)
    return across * (math.sin(cap) * norm_g / across.norm().item()) + m * (
        math.cos(cap) * norm_g / norm_m
    )
