"""MoClip: an Adam whose gradient may not turn away from its momentum by more than an angle.

With g the gradient of a tensor and m its first moment before this step: where angle(g, m) exceeds
the cap, g is turned, in the plane of g and m and at the same norm, to exactly the cap:

    g' = |g| (cos(cap) m / |m| + sin(cap) u),    u the unit vector of g - (g.m / m.m) m

Then theta -= lr * (a * atan2(m_hat, b * sqrt(v_hat)) + weight_decay * theta),
with Adam's moments of g'.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from lrmoclip.core.angles import Piece, Turn, cast, measure, turned, working_dtype
from lrmoclip.core.arguments import check_type
from lrmoclip.core.eager import eager
from lrmoclip.core.groups import check_gradients, check_loaded, check_settings, dtype_named

# Elements a thread works on at a time. On a CPU a chunk's parameter, gradient, moments and two
# temporaries should stay in its caches; as a power of two it keeps all but the last few elements
# of a tensor in torch's vector code. An accelerator wants few, large kernels.
CHUNK, LARGE_CHUNK = 2**17, 2**30


class MoClip(Optimizer):
    """Adam with a cap on the angle between gradient and momentum, and a step without epsilon.

    With g the gradient of a tensor and m its first moment before this step, where their angle is
    above the cap g is replaced by g' = |g| (cos(cap) m / |m| + sin(cap) u), u being the unit vector
    of g - (g.m / m.m) m. Then Adam's moments of g', and the step below.

    params        tensors, named tensors or groups, as for any torch optimizer; every setting
                  below may differ between groups
    lr            >= 0; a tensor of one element will do
    betas         each in [0, 1)
    max_angle     degrees in (0, 180]; 180 turns the cap off: the step is then Adam-atan2
                  (step="atan2") or AdamW (step="adam")
    weight_decay  >= 0, decoupled: theta *= 1 - lr * weight_decay
    step          "atan2": -lr * a * atan2(m_hat, b * sqrt(v_hat)), so that no coordinate moves
                  by more than lr * a * pi / 2 besides the decay and the rounding to what is
                  stored, at most half a step of its grid (of bfloat16: 2**-8 of the value)
                  "adam":  -lr * m_hat / (sqrt(v_hat) + eps)
    a, b          > 0, for "atan2" only; a = 4 / pi makes a steady gradient (m_hat equal to
                  sqrt(v_hat), b = 1) move a full lr
    eps           >= 0, for "adam" only
    maximize      ascend instead of descend
    foreach       update small tensors together (fewer calls) or one by one; the result is the same
    track_angles  measure angles at 180 degrees, too, where only `angle_statistics` wants them
    state_dtype   of the two moments, None for that of the parameter, and float32 for float16,
                  whose squares of gradients above 256 overflow and of those below 2**-12
                  underflow. bfloat16 moments halve the memory but stall where a step changes them
                  by less than 2**-8 of themselves, as with a second beta above 0.996: give
                  torch.float32 then

    The angle is that of each tensor as a whole; for a DTensor (FSDP2) that of the whole tensor,
    not of the shard. Nothing is turned where no angle exists:

    - m or g is zero (the first step of a tensor), or either holds a NaN or an infinity, which
      stays in m: one such gradient turns the cap of its tensor off for good, and
      `angle_statistics` counts the tensor as not finite from then on.
    - g is antiparallel to m, to within sqrt(machine epsilon) radians (float32: 0.02 degrees):
      g and m then span no plane. g is left as it is, the one case in which the cap is exceeded.
      This is what happens in every tensor of one element, which could otherwise never reverse.

    What is not finite propagates: a NaN stays in its own coordinate, and an infinite gradient
    makes its coordinate NaN, under "atan2" only one step later (atan2(inf, inf) is finite).

    In float32 a gradient below about 1e-22 underflows in v, as in any Adam; atan2(m, 0) then moves
    a full lr * a * pi / 2, where an epsilon would have moved nothing. A tensor whose squared norm
    leaves the range of float32 has no angle, either. A step computes in float32, in float64 where
    a tensor has it, and rounds once to what is stored. On one machine, equal inputs and an equal
    number of threads give equal bits; another number, or sharding, may change the last ones.

    Beside the moments a step on a CPU needs two temporaries of 2**17 elements a thread (six where
    it converts from half precision), whatever the size of the model. On an accelerator tensors
    are updated whole and together, with temporaries the size of all gradients. Clipping reads
    the sums behind the angles back to the host once a step, rarely twice.

    After a step `last_angles` holds for each group the angles in degrees before clipping, of the
    parameters with a gradient, in order, NaN where none exists; `angle_statistics` sums them up.

    Settings of a group may be changed between steps, and are checked in each. ValueError: one
    outside its range; TypeError: one of another type. RuntimeError: sparse or complex gradients.
    """

    last_angles: Sequence[Sequence[float]] = ()
    _seen: Sequence[tuple[int, int]] = ()  # how many of each group were turned, were not finite

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
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
        state_dtype: torch.dtype | None = None,
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
            "state_dtype": state_dtype,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, after checking what the group sets."""
        check_type("param_group", param_group, dict, "a dict")
        settings = {**self.defaults, **param_group}
        check_settings(settings)
        if isinstance(settings["state_dtype"], torch.dtype):  # checkpoints take plain values only
            param_group["state_dtype"] = str(settings["state_dtype"]).removeprefix("torch.")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but the moments keep the dtype they were saved in, and are copies.

        ValueError: what no MoClip saved, or settings outside their range; nothing has changed.
        """
        last: dict[str, Any] = {}
        params = [p for group in self.param_groups for p in group["params"]]

        def look(_, loaded: dict[str, Any]) -> None:
            check_loaded(loaded, self.defaults, params)
            last.update(loaded)

        with self.register_load_state_dict_pre_hook(look):
            super().load_state_dict(state_dict)
        ids = [i for group in last["param_groups"] for i in group["params"]]
        for i, p in zip(ids, params, strict=True):
            for key, value in last["state"].get(i, {}).items():
                device = value.device if key == "step" else p.device
                self.state[p][key] = value.to(device, copy=True)

    @eager
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:  # all of them, before anything has changed
            check_settings(group)
            check_gradients(group["params"])

        groups = [
            [self._prepared(p, group) for p in group["params"] if p.grad is not None]
            for group in self.param_groups
        ]
        measured = [
            turns if group["max_angle"] < 180 or group["track_angles"] else []
            for turns, group in zip(groups, self.param_groups, strict=True)
        ]
        measure([turn for turns in measured for turn in turns])
        for turns, group in zip(groups, self.param_groups, strict=True):
            for batch in _batches(turns, group["foreach"]):
                _update(batch, group)
        self.last_angles = [[turn.angle for turn in turns] for turns in measured]
        self._seen = [
            (sum(turn.turned for turn in turns), sum(not turn.finite for turn in turns))
            for turns in measured
        ]
        return loss

    def angle_statistics(
        self, quantiles: Sequence[float] = (0.1, 0.5, 0.9)
    ) -> list[dict[str, Any]]:
        """What the last step saw, for each parameter group:

        tensors     how many had an angle (none in a group at 180 degrees without track_angles)
        not_finite  how many had none because of a NaN, an infinity or an overflow in gradient or
                    momentum, and so no cap
        clip_rate   the share of `tensors` that were turned, NaN if there were none
        quantiles   of their angles before clipping, in degrees, in the order asked for
        """
        groups = []
        for angles, (clipped, lost) in zip(self.last_angles, self._seen, strict=True):
            known = torch.tensor([x for x in angles if not math.isnan(x)], dtype=torch.float64)
            n = len(known)
            levels = torch.tensor(quantiles, dtype=torch.float64)
            found = known.quantile(levels) if n else torch.full_like(levels, math.nan)
            rate = clipped / n if n else math.nan
            seen = {"tensors": n, "not_finite": lost, "clip_rate": rate}
            groups.append({**seen, "quantiles": tuple(found.tolist())})
        return groups

    def _prepared(self, p: Tensor, group: dict[str, Any]) -> Turn:
        """The parameter's state, counted on by one, and its pieces."""
        state = self.state[p]
        if not state:
            own = torch.float32 if p.dtype == torch.float16 else p.dtype
            dtype = dtype_named(group["state_dtype"]) or own
            state["step"] = torch.tensor(0.0)  # a tensor, as checkpoints expect
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=dtype)
        steps = state["step"].item() + 1
        state["step"].fill_(steps)
        g, m, v = p.grad, state["exp_avg"], state["exp_avg_sq"]
        layout = (p.device, None, None)
        if hasattr(p, "to_local"):  # a DTensor; a test of its type would import torch.distributed
            layout = (p.device, p.device_mesh, p.placements)
            if g.placements != p.placements:
                g = g.redistribute(placements=p.placements)
            p, g, m, v = (x.to_local() for x in (p, g, m, v))
        return Turn(group, steps, working_dtype(p.dtype, m.dtype), _pieces((p, g, m, v)), layout)


def _chunk(device: torch.device) -> int:
    return CHUNK * torch.get_num_threads() if device.type == "cpu" else LARGE_CHUNK


def _pieces(tensors: Piece) -> list[Piece]:
    """Views of at most a chunk, in the order of memory; the tensors where their layouts differ."""
    p = tensors[0]
    size = _chunk(p.device)
    if p.numel() <= size:
        return [tensors]
    order = sorted(range(p.dim()), key=p.stride, reverse=True)
    dense = [x.permute(order) for x in tensors]
    if not all(x.is_contiguous() for x in dense):
        return [tensors]
    return list(zip(*(x.view(-1).split(size) for x in dense), strict=True))


def _batches(turns: list[Turn], foreach: bool) -> Iterator[list[tuple[Turn, Piece]]]:
    """All pieces; those of one device, dtype and count of steps together, up to a chunk in all."""
    kinds: dict[tuple[Any, ...], list[tuple[Turn, Piece]]] = {}
    for turn in turns:
        p, g, m, _ = turn.pieces[0]
        kind = (p.device, p.dtype, g.dtype, m.dtype, turn.steps)
        kinds.setdefault(kind, []).extend((turn, piece) for piece in turn.pieces)
    for (device, *_), members in kinds.items():
        room = _chunk(device)
        batch, size = [], 0
        for turn, piece in members:
            n = piece[0].numel()
            if batch and (size + n > room or not foreach):
                yield batch
                batch, size = [], 0
            batch.append((turn, piece))
            size += n
        if batch:
            yield batch


def _update(batch: list[tuple[Turn, Piece]], group: dict[str, Any]) -> None:
    """Adam's moments and the step, in place, of pieces of one kind."""
    turns, pieces = zip(*batch, strict=True)
    dtype, steps = turns[0].dtype, turns[0].steps
    stored = [list(column) for column in zip(*pieces, strict=True)]
    p, g, m, v = (cast(column, dtype) for column in stored)
    lr, (beta1, beta2) = float(group["lr"]), group["betas"]
    correct1, correct2 = 1 - beta1**steps, math.sqrt(1 - beta2**steps)  # m_hat = m / correct1

    if group["maximize"]:
        g = torch._foreach_neg(g)
    g = turned(turns, g, m)
    torch._foreach_lerp_(m, g, 1 - beta1)
    move = torch._foreach_mul(g, g)
    torch._foreach_lerp_(v, move, 1 - beta2)
    for x, y in zip(v, move, strict=True):
        torch.sqrt(x, out=y)
    if group["weight_decay"]:
        torch._foreach_add_(p, p, alpha=-lr * group["weight_decay"])
    if group["step"] == "atan2":  # of m_hat and b sqrt(v_hat), both times correct1
        scale = m[0].new_tensor(group["b"] * correct1 / correct2)
        torch._foreach_mul_(move, scale)
        for x, y in zip(m, move, strict=True):
            torch.atan2(x, y, out=y)
        torch._foreach_add_(p, move, alpha=-lr * group["a"])
    else:
        torch._foreach_div_(move, correct2)
        torch._foreach_add_(move, group["eps"])
        torch._foreach_addcdiv_(p, m, move, value=-lr / correct1)
    for old, new in zip((stored[0], *stored[2:]), (p, m, v), strict=True):
        if old is not new:
            torch._foreach_copy_(old, new)
