"""A figure as two files, and what says where they are from."""

from collections.abc import Callable
from pathlib import Path

from lrmoclip.core import artefacts, provenance


def draw(out: Path, plot: Callable[[Path, Path], None]) -> None:
    png, svg = (Path(out).with_suffix(f".{kind}") for kind in ("png", "svg"))
    with artefacts.loose(png.with_suffix(".json"), "figure", png.name, svg.name) as made:
        plot(made.path / png.name, made.path / svg.name)
        made.about |= provenance.stamp()
