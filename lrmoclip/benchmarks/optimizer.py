"""One MoClip step against other optimizers, at 100 million parameters."""

import torch
from torch import nn

from lrmoclip.benchmarks.measure import against, bandwidth, time_in_turns
from lrmoclip.optim import MoClip

PACKAGES = ("adam-atan2-pytorch",)
CAPPED, PLAIN = "MoClip, cap 60", "MoClip, cap 180"
TARGETS = {"adam-atan2-pytorch": "<= 0.7", "torch AdamW, fused": "<= 3.0"}
# The shape of a Llama of 135M parameters, less some layers: 106M.
VOCABULARY, HIDDEN, INTERMEDIATE, KEY_VALUE, LAYERS = 49_152, 576, 1536, 192, 22


def shapes() -> list[tuple[int, ...]]:
    square, key_value = (HIDDEN, HIDDEN), (KEY_VALUE, HIDDEN)
    mlp = [(INTERMEDIATE, HIDDEN), (INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)]
    layer = [square, key_value, key_value, square, *mlp, (HIDDEN,), (HIDDEN,)]
    return [(VOCABULARY, HIDDEN), *layer * LAYERS, (HIDDEN,)]


def against_others(device: torch.device) -> list[dict]:
    """All share parameters and gradients; each has moments of its own. The gradients are fresh
    noise around a fixed direction, so that a cap of 60 degrees turns every tensor's."""
    from adam_atan2_pytorch import AdamAtan2

    torch.manual_seed(0)
    parameters = [nn.Parameter(0.02 * torch.randn(s, device=device)) for s in shapes()]
    noise = [[torch.randn_like(p) for p in parameters] for _ in range(2)]
    optimizers = {
        CAPPED: MoClip(parameters, lr=1e-6, max_angle=60),
        PLAIN: MoClip(parameters, lr=1e-6, max_angle=180),
        "adam-atan2-pytorch": AdamAtan2(parameters, lr=1e-6),
        "torch AdamW, fused": torch.optim.AdamW(parameters, lr=1e-6, fused=True),
    }
    for p, g in zip(parameters, noise[0], strict=True):
        p.grad = g
    for optimizer in optimizers.values():
        optimizer.step()  # moments of one direction, to which the other is orthogonal
    for p, g in zip(parameters, noise[1], strict=True):
        p.grad = g
    seconds = time_in_turns({name: o.step for name, o in optimizers.items()}, rounds=9)
    count = sum(p.numel() for p in parameters)
    rate = bandwidth(device)
    # Gradient and moment are read for the angle, then all four read and three written.
    passes = {CAPPED: 9, PLAIN: 7}
    return [
        against(
            "moclip", f"{count / 1e6:.0f}M parameters", seconds, mine, theirs, target,
            floor_seconds=passes[mine] * 4 * count / rate,
            note=f"floor: {passes[mine]} passes over float32 parameters at {rate / 1e9:.1f} GB/s",
        )
        for mine in (CAPPED, PLAIN)
        for theirs, target in TARGETS.items()
    ]  # fmt: skip
