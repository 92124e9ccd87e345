"""Print table 1 and what belongs to it, aligned."""

from pathlib import Path


def options(command) -> None:
    command.add_argument("--results", type=Path, required=True, help="the folder of table1.csv")


def run(results: Path) -> None:
    """The tables of each scale in its table1.csv, and where files are."""
    from lrmoclip.report import render
    from lrmoclip.report.tables import read, read_table1

    for scale in read_table1(results / "table1.csv")["scale"].unique():
        folder = results / scale
        print(render.report(folder))
        print(render.regimes(read(folder / "regimes.csv")))
        print(render.warnings(read(folder / "warnings.csv")))
        print(f"Files: {folder}/*.csv, {folder}/figures/")
