"""MoClip: an Adam whose gradient may not turn away from its momentum by more than an angle.

With g the gradient of a tensor and m its first moment before this step: where angle(g, m) exceeds
the cap, g is turned, in the plane of g and m and at the same norm, to exactly the cap. Then
theta -= lr * (a * atan2(m_hat, b * sqrt(v_hat)) + weight_decay * theta).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT


class MoClip(Optimizer):
    """Adam with a cap on the angle between gradient and momentum, and a step without epsilon.

    params        tensors, named tensors or groups, as for any torch optimizer; every setting
                  below may differ between groups
    lr            >= 0
    betas         each in [0, 1)
    max_angle     degrees in (0, 180]; 180 turns the cap off: the step is then Adam-atan2
                  (step="atan2") or AdamW (step="adam")
    weight_decay  >= 0, decoupled: theta *= 1 - lr * weight_decay
    step          "atan2": -lr * a * atan2(m_hat, b * sqrt(v_hat)), so that no coordinate moves
                  by more than lr * a * pi / 2 besides the decay
                  "adam":  -lr * m_hat / (sqrt(v_hat) + eps)
    a, b          > 0, for "atan2" only; a = 4 / pi makes a steady gradient (m_hat equal to
                  sqrt(v_hat), b = 1) move a full lr
    eps           >= 0, for "adam" only
    maximize      ascend instead of descend
    foreach       update all tensors of one device and dtype together (faster, with temporaries
                  the size of all gradients) or one by one; the result is the same
    track_angles  keep in `last_angles` what a trainer needs for the clip rate

    The angle is that of each tensor as a whole; for a DTensor (FSDP2) that of the whole tensor,
    not of the shard. Nothing is turned where no angle exists:

    - m or g is zero (the first step of a tensor), or either holds a NaN or an infinity.
    - g is antiparallel to m, to within sqrt(machine epsilon) radians (float32: 0.02 degrees):
      g and m then span no plane. g is left as it is, the one case in which the cap is exceeded.
      This is what happens in every tensor of one element, which could otherwise never reverse.

    What is not finite propagates: a NaN stays in its own coordinate, and an infinite gradient
    makes its coordinate NaN, under "atan2" only one step later (atan2(inf, inf) is finite).

    In float32 a gradient below about 1e-22 underflows in v, as in any Adam; atan2(m, 0) then moves
    a full lr * a * pi / 2, where an epsilon would have moved nothing. Angles lose their meaning
    there, too. Moments have the dtype of their parameter; angles of half-precision tensors are
    computed in float32.

    After a step with track_angles, `last_angles` holds the angle in degrees before clipping, one
    float for each parameter with a gradient, in order; NaN where no angle exists. Without it
    and at 180 degrees no angle is computed. Clipping reads the angles back to the host, once or
    twice a step.

    ValueError: a setting outside its range. RuntimeError: sparse or complex gradients.
    """

    last_angles: tuple[float, ...] = ()

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        max_angle: float = 90.0,
        weight_decay: float = 0.0,
        step: str = "atan2",
        a: float = 4 / math.pi,
        b: float = 1.0,
        eps: float = 1e-8,
        *,
        maximize: bool = False,
        foreach: bool = True,
        track_angles: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "max_angle": max_angle,
            "weight_decay": weight_decay,
            "step": step,
            "a": a,
            "b": b,
            "eps": eps,
            "maximize": maximize,
            "foreach": foreach,
            "track_angles": track_angles,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, after checking what the group sets."""
        _check_settings({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:  # all of them, before anything has changed
            _check_gradients(group["params"])

        angles: dict[Tensor, float] = {}
        for group in self.param_groups:
            for params in _buckets(group):
                angles.update(zip(params, self._update(params, group), strict=False))
        self.last_angles = tuple(
            angles[p] for group in self.param_groups for p in group["params"] if p in angles
        )
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> list[float]:
        """Update `params`, all of one device and dtype; their angles, if any were computed."""
        for p in params:
            if not self.state[p]:
                self.state[p]["step"] = torch.tensor(0.0)  # a tensor, as checkpoints expect
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in params]
        grads = [-p.grad if group["maximize"] else p.grad for p in params]
        m = [s["exp_avg"] for s in states]
        v = [s["exp_avg_sq"] for s in states]
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]

        angles: list[float] = []
        if group["max_angle"] < 180 or group["track_angles"]:
            grads, angles = cap_angles(grads, m, group["max_angle"])

        torch._foreach_lerp_(m, grads, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, value=1 - beta2)
        for s in states:
            s["step"] += 1
        steps = [s["step"].item() for s in states]

        move = torch._foreach_div(m, [1 - beta1**t for t in steps])  # m_hat
        scale = torch._foreach_sqrt(v)
        torch._foreach_div_(scale, [math.sqrt(1 - beta2**t) for t in steps])  # sqrt(v_hat)
        if group["step"] == "atan2":
            torch._foreach_mul_(scale, group["b"])
            for x, y in zip(move, scale, strict=True):
                x.atan2_(y)
            torch._foreach_mul_(move, group["a"])
        else:
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_div_(move, scale)
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_add_(params, move, alpha=-lr)
        return angles if group["track_angles"] else []


def cap_angles(
    grads: list[Tensor], moments: list[Tensor], max_angle: float
) -> tuple[list[Tensor], list[float]]:
    """Turn each gradient that is more than `max_angle` degrees from its moment to that angle.

    Tensors of one device and dtype, pairwise of one shape -> the gradients, those within the cap
    being the tensors that came in, and the angles in degrees before, NaN where none exists. With
    u the unit vector along g - (g.m / m.m) m:

        g' = |g| (cos(cap) m / |m| + sin(cap) u)
    """
    dtype = torch.promote_types(grads[0].dtype, torch.float32)
    g, m = [x.to(dtype) for x in grads], [x.to(dtype) for x in moments]
    dot = [x.sum() for x in torch._foreach_mul(g, m)]
    sums = _to_host([*dot, *torch._foreach_norm(g), *torch._foreach_norm(m)])
    dot, norm_g, norm_m = sums.view(3, -1)  # each (tensors,) float64; 0 / 0 gives NaN below
    angles = torch.rad2deg(torch.acos((dot / norm_g / norm_m).clamp(-1, 1))).tolist()
    over = [i for i, angle in enumerate(angles) if angle > max_angle]  # never a NaN
    if not over:
        return grads, angles

    g, m = [g[i] for i in over], [m[i] for i in over]
    dot, norm_g, norm_m = dot[over], norm_g[over], norm_m[over]
    u = torch._foreach_sub(g, torch._foreach_mul(m, (dot / norm_m / norm_m).tolist()))
    norm_u = _to_host(torch._foreach_norm(u))
    cap = math.radians(max_angle)
    torch._foreach_mul_(u, (math.sin(cap) * norm_g / norm_u).tolist())
    along = torch._foreach_mul(m, (math.cos(cap) * norm_g / norm_m).tolist())
    torch._foreach_add_(u, along)

    capped = list(grads)
    is_plane = norm_u > math.sqrt(torch.finfo(dtype).eps) * norm_g
    for i, turned, plane in zip(over, u, is_plane.tolist(), strict=True):
        if plane:
            capped[i] = turned.to(grads[i].dtype)
    return capped, angles


def _to_host(scalars: Iterable[Tensor]) -> Tensor:
    """Scalars as one float64 tensor on the CPU, in one copy; a DTensor's is summed over shards."""
    whole = [x.full_tensor() if hasattr(x, "full_tensor") else x for x in scalars]
    return torch.stack(whole).double().cpu()


def _buckets(group: dict[str, Any]) -> Iterable[list[Tensor]]:
    """The group's parameters that have a gradient, to be updated together."""
    params = [p for p in group["params"] if p.grad is not None]
    if not group["foreach"]:
        return [[p] for p in params]
    buckets: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in params:
        buckets.setdefault((p.device, p.dtype), []).append(p)
    return buckets.values()


def _check_gradients(params: Iterable[Tensor]) -> None:
    for p in params:
        if p.grad is None:
            continue
        if p.grad.layout != torch.strided:
            raise RuntimeError(
                "MoClip does not take sparse gradients, whose angle to a dense momentum would cost "
                "a dense pass: use sparse=False in the embedding, or torch.optim.SparseAdam"
            )
        if p.is_complex():
            raise RuntimeError(
                "MoClip does not take complex parameters, for which its angle is not defined: "
                "optimise torch.view_as_real(parameter)"
            )


def _check_settings(group: dict[str, Any]) -> None:
    """ValueError naming the argument and its range; each comparison also refuses a NaN."""
    betas = group["betas"]
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas}")
    if not 0 < group["max_angle"] <= 180:
        raise ValueError(f"max_angle must lie in (0, 180] degrees, got {group['max_angle']}")
    if group["step"] not in ("atan2", "adam"):
        raise ValueError(f"step must be 'atan2' or 'adam', got {group['step']!r}")
    for name in ("lr", "weight_decay", "eps"):
        if not 0 <= group[name] < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, got {group[name]}")
    for name in ("a", "b"):
        if not 0 < group[name] < math.inf:
            raise ValueError(f"{name} must be finite and > 0, got {group[name]}")
