"""One table 1 of several scales."""

from pathlib import Path

from lrmoclip.cli.options import add, add_several


def options(command) -> None:
    add_several(command, "tables")
    add(command, "out")


def run(tables: list[Path], out: Path) -> None:
    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.report import tables as library

    with artefacts.file(out, "tables") as made:
        gathered = library.gather(library.read_table1(path) for path in tables)
        files.write_text(made.path / Path(out).name, library.to_csv(gathered))
        made.about |= provenance.stamp()
