"""Pretrain, convert or copy a base model."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import load


def options(command) -> None:
    add_scale(command)
    add(command, "base", "data", "out")


def run(config: Path, base: str, data: Path, out: Path) -> None:
    """Save it with its tokenizer: pretrained on the scale's text, out of a wheel, from a folder or
    from the hub."""
    import torch

    from lrmoclip.core import artefacts, provenance
    from lrmoclip.models import bases, checkpoints

    scale = load(config)
    torch.set_num_threads(scale.threads.pretrain)
    scale.base(base)
    with artefacts.folder(out, checkpoints.KIND) as made:
        model, tokenizer, facts = bases.make(scale, base, data)
        checkpoints.save(made.path, model, tokenizer)
        made.about |= checkpoints.of(scale.name, base)
        made.about |= provenance.stamp(config=bases.identity(scale, base), **facts)
