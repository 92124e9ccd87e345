"""Arguments of a wrong type or shape, refused by their name and what is allowed."""

from numbers import Integral, Real

import torch
from torch import Tensor


def check_number(name: str, value: object, allowed: str = "a number") -> None:
    """TypeError unless `value` is a real number; a bool is none, nor is a tensor."""
    if type(value) is float:  # an optimizer asks many times a step
        return
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")


def check_whole(name: str, value: object, allowed: str = "an integer") -> None:
    """TypeError unless `value` is an integer; 4.0 is none, nor is True."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")


def check_type(name: str, value: object, kind: type, allowed: str) -> None:
    """TypeError unless `value` is a `kind`, in the words of `allowed`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {allowed}, got {type(value).__name__}")


def check_tensor(name: str, value: object) -> None:
    """TypeError unless `value` is a tensor."""
    check_type(name, value, Tensor, "a tensor")


def check_vector(name: str, value: Tensor, count: int, dtype: torch.dtype | None = None) -> None:
    """TypeError unless `value` is a tensor, ValueError unless it is (count,) in `dtype`, in any
    floating one where none is given."""
    check_tensor(name, value)
    fits = value.dtype == dtype or (dtype is None and value.is_floating_point())
    if not fits or value.shape != (count,):
        wanted = "floating" if dtype is None else str(dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} must be {wanted} ({count},), got {value.dtype} {tuple(value.shape)}"
        )


def whole_numbers(name: str, values: object) -> Tensor:
    """`values`, a sequence, an array or a tensor of integers, as (n,) int64 on the CPU. TypeError
    where they are no integers, ValueError where they are not in one row."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be integers, got {values!r}") from None
    if found.ndim != 1:
        raise ValueError(f"{name} must be in one row, got shape {tuple(found.shape)}")
    if found.numel() and (found.dtype == torch.bool or found.is_floating_point()):
        raise TypeError(f"{name} must be integers, got {found.dtype}")
    return found.to("cpu", torch.int64)
