"""MoClip's update of a tensor as one kernel, by torch.compile: parameter, gradient and moments are
read once and written once, with no temporary between."""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from lrmoclip.angles import Piece, Turn


def update(batch: list[tuple[Turn, Piece]], group: dict[str, Any]) -> None:
    """Adam's moments and the step, in place, of each piece with the settings of its group."""
    (beta1, beta2), lr = group["betas"], float(group["lr"])
    for turn, piece in batch:
        correct1, correct2 = 1 - beta1**turn.steps, math.sqrt(1 - beta2**turn.steps)
        if group["step"] == "atan2":  # of m_hat and b sqrt(v_hat), both times correct1
            root, rate = group["b"] * correct1 / correct2, lr * group["a"]
        else:
            root, rate = 1 / correct2, lr / correct1
        factors = [
            *(-1.0 if group["maximize"] else 1.0, turn.scale, turn.lean, 1 - beta1, 1 - beta2),
            *(lr * group["weight_decay"], root, rate, group["eps"]),
        ]
        step = partial(_step, group["step"])
        if all(x.is_contiguous() for x in piece):
            # Flat, so that one kernel serves all shapes; another layout is not worth a kernel.
            step, piece = _kernel(group["step"]), [x.view(-1) for x in piece]
        step(*piece, piece[0].new_tensor(factors, dtype=turn.dtype))


@cache
def _kernel(step: str) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]:
    """Compiled at its first call, for tensors of any size."""
    return torch.compile(partial(_step, step), dynamic=True, fullgraph=True)


def _step(step: str, p: Tensor, g: Tensor, m: Tensor, v: Tensor, factors: Tensor) -> None:
    """Computed in the dtype of `factors` (9,). g' = scale (sign g + lean m), with w1 and w2 one
    less the betas, and theta -= decay theta + rate times the move."""
    sign, scale, lean, w1, w2, decay, root, rate, eps = factors.unbind()
    theta, mean, square = (x.to(factors.dtype) for x in (p, m, v))
    turned = scale * (sign * g.to(factors.dtype) + lean * mean)
    mean = torch.lerp(mean, turned, w1)
    square = torch.lerp(square, turned * turned, w2)
    scaled = root * square.sqrt()
    move = torch.atan2(mean, scaled) if step == "atan2" else mean / (scaled + eps)
    p.copy_(theta - decay * theta - rate * move)
    m.copy_(mean)
    v.copy_(square)
