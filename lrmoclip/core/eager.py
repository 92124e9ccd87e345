"""Functions that a torch.compile around them breaks its graph for, and runs as they stand.

Sets have shapes that only their content tells, and a compiled sum may round another way than the
one that decided a set: there is nothing to win and bits to lose."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P, R = ParamSpec("P"), TypeVar("R")


def eager(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, kept out of whatever torch.compile captures; with fullgraph=True, torch says so.

    `torch.compiler.disable` as a decorator would import the compiler, seconds for nothing where
    none is in use.
    """

    @wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return outside
