"""Choose learning rates from sweeps."""

from pathlib import Path

from lrmoclip.cli.options import add, add_several


def options(command) -> None:
    add_several(command, "sweeps")
    add(command, "out")


def run(sweeps: list[Path], out: Path) -> None:
    """Write the chosen rate of every base, domain and method, the sweeps themselves beside it."""
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.report.tables import read
    from lrmoclip.train.tuning import PROVENANCE, RATES, SWEEP, SWEEPS, choose

    with artefacts.loose(out.with_name(PROVENANCE), RATES, out.name, SWEEPS) as made:
        swept = pd.concat([read(path, SWEEP) for path in sweeps], ignore_index=True)
        files.write_text(made.path / SWEEPS, swept.to_csv(index=False))
        files.write_text(made.path / out.name, choose(swept).to_csv(index=False))
        made.about |= provenance.stamp()
