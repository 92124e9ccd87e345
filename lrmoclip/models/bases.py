"""Base models, by where they are from: an entry of a scale's `bases`."""

from pathlib import Path

from lrmoclip.config import Scale, fingerprint
from lrmoclip.config.parts import Folder, Scratch, Wheel


def make(scale: Scale, base: str, data: Path):
    """(model, tokenizer, facts) of a base, made, converted or read; facts for its manifest.

    data: the scale's data folder, for a base that is pretrained here.
    """
    spec = scale.base(base)
    if isinstance(spec, Scratch):
        from lrmoclip.models import scratch

        return scratch.make(spec, data)
    if isinstance(spec, Wheel):
        from lrmoclip.models import wheel

        return wheel.make(spec)
    if isinstance(spec, Folder):
        from lrmoclip.models import local

        return local.make(source(scale, base))
    from lrmoclip.models import hub

    return hub.make(scale, spec)


def source(scale: Scale, base: str) -> Path | None:
    """The folder on the user's disk that a base is out of; a path is relative to the scale's file.
    None for others."""
    spec = scale.base(base)
    return scale.path.parent / spec.path if isinstance(spec, Folder) else None


def identity(scale: Scale, base: str) -> str:
    """Hash of everything in the config that a base model depends on."""
    spec = scale.base(base)
    said = spec.model_dump(mode="json", exclude={"architecture"})
    return fingerprint([said, scale.data] if isinstance(spec, Scratch) else [said])
