"""Logits Replay + MoClip: candidate sets (Stage 0), the restricted loss (Stage 1), the optimizer.

Names are loaded on first use, so that a tool which only reads a config does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what a type checker and an editor see
    from lrmoclip.core.candidates import Candidates, select_candidates
    from lrmoclip.core.losses import restricted_linear_cross_entropy
    from lrmoclip.core.optim import MoClip
    from lrmoclip.core.store import CandidateStore, StoreWriter

__version__ = "0.1.0"

_HOMES = {
    "Candidates": "candidates",
    "select_candidates": "candidates",
    "CandidateStore": "store",
    "StoreWriter": "store",
    "restricted_linear_cross_entropy": "losses",
    "MoClip": "optim",
}
__all__ = [
    "CandidateStore",
    "Candidates",
    "MoClip",
    "StoreWriter",
    "restricted_linear_cross_entropy",
    "select_candidates",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'lrmoclip' has no attribute {name!r}")
    return getattr(import_module(f"lrmoclip.core.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
