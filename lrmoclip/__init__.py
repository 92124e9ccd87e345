"""Logits Replay + MoClip: candidate sets (Stage 0), the restricted loss (Stage 1), the optimizer.

Names are loaded on first use, so that a tool which only reads a config does not import torch.
"""

from importlib import import_module

_HOMES = {
    "Candidates": "candidates",
    "select_candidates": "candidates",
    "CandidateStore": "store",
    "StoreWriter": "store",
    "restricted_linear_cross_entropy": "losses",
    "MoClip": "optim",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'lrmoclip' has no attribute {name!r}")
    return getattr(import_module(f"lrmoclip.{_HOMES[name]}"), name)
