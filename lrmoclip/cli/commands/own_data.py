"""Write the data of a domain of your own, from a folder of records."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import fingerprint, load
from lrmoclip.core.errors import UserError


def options(command) -> None:
    add_scale(command)
    add(command, "domain", "data", "out")


def run(config: Path, domain: str, data: Path, out: Path) -> None:
    """Held apart from all test items of the scale's `data`; what is left out is printed."""
    from lrmoclip.core import artefacts, provenance
    from lrmoclip.data import own, records

    scale = load(config)
    asked = scale.domain(domain)
    if asked.folder is None:
        raise UserError(f"{scale.path}: domains.{domain} has no folder", "Add the key folder")
    sizes = asked.model_dump(include={"train", "validation", "test"})
    source = scale.path.parent / asked.folder
    with artefacts.folder(out, records.KIND) as made:
        others, seed = records.Data([data]), scale.data.seed
        about = own.write(made.path, source, domain, asked.kind, sizes, others, seed)
        made.about |= about | provenance.stamp(config=fingerprint([sizes, asked.kind, seed]))
    print(own.in_words(domain, about))
