"""Write the scale's data sets."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import Scale, fingerprint, load


def options(command) -> None:
    add_scale(command)
    add(command, "out")
    add(command, "data-dir", required=False)


def run(config: Path, out: Path, data_dir: Path | None = None) -> None:
    write(load(config), out, data_dir)


def write(scale: Scale, out: Path, data_dir: Path | None = None) -> None:
    """Generated, or from a folder of published data (the scale's own, where none is named) or the
    hub."""
    from lrmoclip.core import artefacts, provenance
    from lrmoclip.data import records

    settings = scale.data.model_dump(by_alias=True, exclude_none=True)
    with artefacts.folder(out, records.KIND) as made:
        if scale.data.generator == "micro":
            from lrmoclip.data.micro import world

            world.write(made.path, scale.data.seed, settings["sizes"])
        else:
            from lrmoclip.data.published import sources, write
            from lrmoclip.models import hub

            pinned = hub.snapshots(scale) if scale.data.repositories else None
            source = sources.open_source(settings, data_dir or scale.data_dir, pinned)
            made.about |= write.write(made.path, settings, source)
        made.about |= provenance.stamp(config=fingerprint(scale.data))
