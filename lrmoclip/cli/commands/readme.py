"""Show what is kept: claims and speed in documents, the tables of each scale beside them."""

from pathlib import Path

from lrmoclip.cli.options import add, add_several
from lrmoclip.core.errors import UserError

MADE = "<!-- made by `make readme` from the files beside it -->\n"


def options(command) -> None:
    add(command, "claims", "reference")
    add_several(command, "into", words="documents with places for what is made: <!-- claims -->")


def run(claims: Path, reference: Path, into: list[Path]) -> None:
    """Write the claims (markers `claims`) and what was timed (`speed`) between their markers in the
    documents, and README.md in the folder of each kept scale."""
    from lrmoclip.core import artefacts, files
    from lrmoclip.edge.typed import read_yaml
    from lrmoclip.report import claims as stated
    from lrmoclip.report.tables import read
    from lrmoclip.speed.report import markdown

    kept = sorted(path.parent for path in reference.glob("*/provenance.json"))
    if not kept:
        raise UserError(f"{reference}: no scale's tables", "Name results/reference")
    devices = sorted(reference.glob("benchmarks*.csv"))  # one a device
    parts = {
        "claims": stated.markdown(stated.kept(read_yaml(claims, stated.Claims), reference)),
        "speed": "\n".join(markdown(read(path)) for path in devices),
    }
    texts = {path: _filled(files.read_text(path), parts, path) for path in into}
    for folder in kept:
        path = folder / "README.md"
        if path.exists() and MADE not in files.read_text(path):
            raise UserError(f"{path}: there already, and not made by us", "Move it")
        texts[path] = _of_scale(folder)
    for path, text in texts.items():
        artefacts.edit(path, text)


def _of_scale(folder: Path) -> str:
    """The tables of a kept scale, how they were made, and its picture."""
    from lrmoclip.core import files
    from lrmoclip.report import render
    from lrmoclip.report.tables import read

    made = files.read_json(folder / "provenance.json")
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    return "\n".join(
        [
            f"# Results of the scale {folder.name}\n\n{MADE}",
            f"On {made['hardware']}, commit {made['commit'][:7]}; {versions}. How to read them: "
            "[docs/tables.md](../../../docs/tables.md).\n",
            "![Domain gain against general loss](forgetting.png)\n",
            render.report(folder, render.MARKDOWN),
            render.regimes(read(folder / "regimes.csv"), render.MARKDOWN),
        ]
    )


def _filled(document: str, parts: dict[str, str], path: Path) -> str:
    """The document with each part between its markers, of which it has at least one pair."""
    there = [name for name in parts if f"<!-- {name} -->" in document]
    if not there:
        raise UserError(f"{path}: no place for {' or '.join(parts)}", "Mark it: <!-- claims -->")
    for name in there:
        markers = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if [document.count(marker) for marker in markers] != [1, 1]:
            raise UserError(
                f"{path}: needs one pair of markers", " and ".join(markers).replace("\n", "")
            )
        before, rest = document.split(markers[0])
        document = before + markers[0] + parts[name] + markers[1] + rest.split(markers[1])[1]
    return document
