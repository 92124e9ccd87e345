"""The scaling plot of a benchmarks.csv."""

from pathlib import Path

from lrmoclip.cli.drawing import draw
from lrmoclip.cli.options import add


def options(command) -> None:
    add(command, "table", "out")


def run(table: Path, out: Path) -> None:
    """Draw its scaling rows as `out`.png and `out`.svg."""
    from lrmoclip.report.tables import read
    from lrmoclip.speed import COLUMNS
    from lrmoclip.speed.report import scaling_plot

    draw(out, lambda png, svg: scaling_plot(read(table, COLUMNS), png, svg))
