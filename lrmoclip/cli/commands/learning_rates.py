"""Choose learning rates, and settings of knobs, from sweeps."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale, add_several
from lrmoclip.config import load


def options(command) -> None:
    add_scale(command)
    add_several(command, "sweeps")
    add(command, "out")


def run(config: Path, sweeps: list[Path], out: Path) -> None:
    """Write what is chosen of every base, domain, method and budget, the sweeps beside it."""
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.report.tables import read
    from lrmoclip.train.choosing import PROVENANCE, RATES, SWEEP, SWEEPS, choose

    with artefacts.loose(out.with_name(PROVENANCE), RATES, out.name, SWEEPS) as made:
        swept = pd.concat([read(path, SWEEP) for path in sweeps], ignore_index=True)
        files.write_text(made.path / SWEEPS, swept.to_csv(index=False))
        files.write_text(made.path / out.name, choose(swept, load(config)).to_csv(index=False))
        made.about |= provenance.stamp()
