"""The forgetting plot of a table 1."""

from pathlib import Path

from lrmoclip.cli.drawing import draw
from lrmoclip.cli.options import add, add_several
from lrmoclip.config import load


def options(command) -> None:
    add_several(command, "configs", words="of every scale in the table")
    add(command, "table", "out")


def run(configs: list[Path], table: Path, out: Path) -> None:
    """Draw it as `out`.png and `out`.svg; what family a method is of, the configs know."""
    from lrmoclip.core.errors import UserError
    from lrmoclip.report import tables
    from lrmoclip.report.figures import forgetting_plot

    points = {name: point for path in configs for name, point in load(path).points.items()}
    families = {name: point.objective.family for name, point in points.items()}
    shown = tables.read_table1(table)
    for method in shown["method"]:
        if method not in families and method != "base":
            raise UserError(f"{table}: unknown method {method!r}", "Name its scale in --configs")
    draw(out, lambda png, svg: forgetting_plot(shown, families, png, svg))
