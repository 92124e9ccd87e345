"""What a forward pass computes in: float32, or bfloat16 where torch's autocast trusts it. Weights,
gradients and the optimizer's state stay float32 in both."""

import torch

PRECISIONS = ("float32", "bfloat16")


def autocast(precision: str, device: torch.device, keep: bool = True) -> torch.autocast:
    """The context of a forward pass and its loss in `precision`, one of `PRECISIONS`.

    keep: hold each weight's cast until the outermost context ends, for the passes that follow. A
    step uses a weight once, and sharded weights are not to be held whole.

    In float32 it does nothing. ValueError for another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=keep
    )
