"""What the parameter groups of MoClip may hold: settings, saved states and gradients."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lrmoclip.core.arguments import check_number, check_type

_AT_LEAST_0 = "finite and >= 0", lambda x: 0 <= x < math.inf
_ABOVE_0 = "finite and > 0", lambda x: 0 < x < math.inf
# What a number must be, in words and as a test, which a NaN fails.
_NUMBERS = {
    "lr": _AT_LEAST_0,
    "betas": ("two numbers in [0, 1)", lambda x: 0 <= x < 1),
    "max_angle": ("in (0, 180] degrees", lambda x: 0 < x <= 180),
    "weight_decay": _AT_LEAST_0,
    "a": _ABOVE_0,
    "b": _ABOVE_0,
    "eps": _AT_LEAST_0,
}


def check_settings(group: dict[str, Any]) -> None:
    """ValueError, TypeError naming the setting and what it must be; some microseconds."""
    lr, betas = group["lr"], group["betas"]
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"lr must be a number or one in a tensor, got shape {lr.shape}")
        lr = lr.item()
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas!r}")
    numbers = [("lr", lr), *(("betas", beta) for beta in betas)]
    numbers += [(name, group[name]) for name in ("max_angle", "weight_decay", "a", "b", "eps")]
    for name, value in numbers:
        allowed, fits = _NUMBERS[name]
        check_number(name, value, f"a number, {allowed}")
        if not fits(value):
            raise ValueError(f"{name} must be {allowed}, got {group[name]}")
    if group["step"] not in ("atan2", "adam"):
        raise ValueError(f"step must be 'atan2' or 'adam', got {group['step']!r}")
    dtype = group["state_dtype"]
    if dtype is not None and not getattr(dtype_named(dtype), "is_floating_point", False):
        raise ValueError(f"state_dtype must be a floating-point torch.dtype or None, got {dtype}")
    for name in ("maximize", "foreach", "track_angles"):
        check_type(name, group[name], bool, "True or False")


def check_loaded(loaded: dict[str, Any], settings: Iterable[str], params: list[Tensor]) -> None:
    """ValueError where a state_dict is not MoClip's or its moments are not those of `params`."""
    for group in loaded["param_groups"]:
        if missing := set(settings) - set(group):
            raise ValueError(f"state_dict is not MoClip's: a group lacks {min(missing)!r}")
        check_settings(group)
    ids = [i for group in loaded["param_groups"] for i in group["params"]]
    for i, p in zip(ids, params, strict=False):  # torch compares how many there are
        state = loaded["state"].get(i)
        if not state:
            continue
        if missing := {"step", "exp_avg", "exp_avg_sq"} - set(state):
            raise ValueError(f"state_dict is not MoClip's: the state of {i} lacks {min(missing)!r}")
        for name in ("exp_avg", "exp_avg_sq"):
            if state[name].shape != p.shape:
                raise ValueError(
                    f"state_dict is of other parameters: {name} of {i} is "
                    f"{tuple(state[name].shape)}, the parameter {tuple(p.shape)}"
                )


def check_gradients(params: Iterable[Tensor]) -> None:
    """RuntimeError for a sparse or complex gradient."""
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


def dtype_named(name: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of that name, None where torch has none."""
    return getattr(torch, str(name).removeprefix("torch."), None)
