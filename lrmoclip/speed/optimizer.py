"""One MoClip step against other optimizers, at 100 million parameters."""

import torch
from torch import nn

from lrmoclip.core.optim import MoClip
from lrmoclip.cost.stopwatch import time_in_turns
from lrmoclip.speed.measure import against, bandwidth

PACKAGES = ("adam-atan2-pytorch",)
CAPPED, PLAIN = "MoClip, cap 60", "MoClip, cap 180"
ATAN2, ADAMW = "adam-atan2-pytorch", "torch AdamW, fused"
TARGETS = {
    (CAPPED, ATAN2): "<= 0.7",
    (CAPPED, ADAMW): "<= 3.0",
    (PLAIN, ATAN2): "<= 0.7",
    (PLAIN, ADAMW): "<= 3.0",
}
# The shape of a Llama of 135M parameters, less some layers: 106M.
VOCABULARY, HIDDEN, INTERMEDIATE, KEY_VALUE, LAYERS = 49_152, 576, 1536, 192, 22


def shapes() -> list[tuple[int, ...]]:
    square, key_value = (HIDDEN, HIDDEN), (KEY_VALUE, HIDDEN)
    mlp = [(INTERMEDIATE, HIDDEN), (INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)]
    layer = [square, key_value, key_value, square, *mlp, (HIDDEN,), (HIDDEN,)]
    return [(VOCABULARY, HIDDEN), *layer * LAYERS, (HIDDEN,)]


def against_others(device: torch.device) -> list[dict]:
    """All share parameters and gradients; each has moments of its own. Every tensor's gradient
    stays at 90 degrees from MoClip's momentum, whose first beta is near one, so a cap of 60 turns
    each of them at each step."""
    from adam_atan2_pytorch import AdamAtan2

    torch.manual_seed(0)
    parameters = [nn.Parameter(0.02 * torch.randn(s, device=device)) for s in shapes()]
    betas, decay = (0.9999, 0.99), 0.01
    common = {"lr": 1e-6, "betas": betas, "weight_decay": decay}
    optimizers = {
        CAPPED: MoClip(parameters, max_angle=60, **common),
        PLAIN: MoClip(parameters, max_angle=180, **common),
        ATAN2: AdamAtan2(parameters, **common),
        ADAMW: torch.optim.AdamW(parameters, fused=True, **common),
    }
    for p in parameters:
        p.grad = torch.randn_like(p)
    for optimizer in optimizers.values():
        optimizer.step()
    for p in parameters:
        optimizers[CAPPED].state[p]["exp_avg"].normal_()
    seconds = time_in_turns({name: o.step for name, o in optimizers.items()}, rounds=9)
    count = sum(p.numel() for p in parameters)
    rate = bandwidth(device)
    rows = []
    for (mine, theirs), target in TARGETS.items():
        # Gradient and moment are read for the angle, then all four read and three written.
        passes = 7 if mine == PLAIN else 9
        note = f"floor: {passes} passes of 4 bytes at {rate / 1e9:.1f} GB/s"
        if mine == CAPPED:
            [seen] = optimizers[CAPPED].angle_statistics()
            note = f"{seen['clip_rate']:.0%} of tensors turned, {note}"
        more = {"floor_seconds": passes * 4 * count / rate, "note": note}
        case = f"{count / 1e6:.0f}M parameters"
        rows.append(against("moclip", case, seconds, mine, theirs, target, **more))
    return rows
