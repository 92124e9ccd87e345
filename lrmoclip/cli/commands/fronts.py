"""The picture of what can be gained at what loss."""

from pathlib import Path

from lrmoclip.cli.drawing import draw
from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import load


def options(command) -> None:
    add_scale(command)
    add(command, "table", "out")


def run(config: Path, table: Path, out: Path) -> None:
    """Draw a `fronts.csv` as `out`.png and `out`.svg."""
    from lrmoclip.report.front_figures import fronts_plot
    from lrmoclip.report.fronts import FRONTS
    from lrmoclip.report.tables import read

    scale, shown = load(config), read(table, FRONTS)
    families = {name: point.objective.family for name, point in scale.points.items()}
    budgets = scale.tuning.budgets
    draw(out, lambda png, svg: fronts_plot(shown, families, budgets, png, svg))
