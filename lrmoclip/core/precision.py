"""What a forward pass computes in: float32, or bfloat16 where torch's autocast trusts it. Weights,
gradients and the optimizer's state stay float32 in both."""

import torch

AUTO, PRECISIONS = "auto", ("float32", "bfloat16")


def chosen(precision: str) -> str:
    """One of `PRECISIONS`; for AUTO, bfloat16 where this machine's device has instructions for it.
    A CPU without them took 3.4 times as long in bfloat16 as in float32."""
    if precision != AUTO:
        return precision
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


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
