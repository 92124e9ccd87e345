"""The picture of forgetting over how far a model moved."""

from pathlib import Path

from lrmoclip.cli.drawing import draw
from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import load


def options(command) -> None:
    add_scale(command)
    add(command, "table", "out")


def run(config: Path, table: Path, out: Path) -> None:
    """Draw a `fronts.csv` as `out`.png and `out`.svg."""
    from lrmoclip.report.front_figures import departure_plot
    from lrmoclip.report.fronts import FRONTS
    from lrmoclip.report.tables import read

    shown = read(table, FRONTS)
    families = {name: point.objective.family for name, point in load(config).points.items()}
    draw(out, lambda png, svg: departure_plot(shown, families, png, svg))
