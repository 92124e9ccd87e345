"""Functions of which autograd knows the first derivative, and that refuse every other in words."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import NoReturn

import torch
from torch import Tensor


class Once(torch.autograd.Function):
    """A function whose backward is a `once` and which has no other derivative."""

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = signature(cls.forward)  # torch asks for it in each call

    @staticmethod
    def jvp(ctx, *tangents: Tensor) -> NoReturn:
        _refuse()

    @staticmethod
    def vmap(info, in_dims: tuple, *args: Tensor) -> NoReturn:
        _refuse()


def once(backward: Callable) -> Callable:
    """A backward whose results have no graph, refused where one is asked for.

    torch's `once_differentiable` refuses only what comes in with a graph of its own. The gradient
    of a sum does not, and second derivatives would be zero without a word.
    """

    @wraps(backward)
    def checked(ctx, *grads: Tensor):
        if torch.is_grad_enabled():  # in a backward, under create_graph=True alone
            _refuse()
        return backward(ctx, *grads)

    return checked


def _refuse() -> NoReturn:
    raise RuntimeError(
        "the restricted loss is differentiable once, by backward() or torch.autograd.grad(): not "
        "with create_graph=True and so not twice, nor by torch.func, vmap or forward mode"
    )
