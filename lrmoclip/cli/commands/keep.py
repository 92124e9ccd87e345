"""Keep tuned learning rates where a scale's config reads them."""

from pathlib import Path

from lrmoclip.cli.options import add_several
from lrmoclip.config import Scale, load
from lrmoclip.core.errors import UserError


def options(command) -> None:
    add_several(command, "configs", words="one of each file of rates")
    add_several(command, "rates", words="files of `lrmoclip learning-rates`")


def run(configs: list[Path], rates: list[Path]) -> None:
    if len(configs) != len(rates):
        raise UserError("--configs, --rates differ in number", "Name one config of each")
    for config, path in zip(configs, rates, strict=True):
        keep(load(config), path)


def keep(scale: Scale, rates: Path) -> None:
    """Replace the kept rates, and their sweeps, of the methods in a file of rates; others stay."""
    from lrmoclip.core import artefacts, files
    from lrmoclip.report.tables import read
    from lrmoclip.train.choosing import KEYS, PROVENANCE, RATES, SWEEPS, replaced

    about = files.read_sealed(rates.with_name(PROVENANCE), RATES)
    fresh = read(rates, KEYS).assign(commit=about["commit"])
    kept = scale.rates_path
    sweeps = kept.with_name(kept.name.replace("learning_rates", "tuning"))
    if sweeps == kept:  # a name of the user's own
        sweeps = kept.with_name(f"{kept.stem}_tuning.csv")
    for path, new in {kept: fresh, sweeps: read(rates.with_name(SWEEPS), KEYS)}.items():
        table = replaced(_kept(path, scale), new)
        artefacts.edit(path, table.to_csv(index=False))
    print(f"{len(fresh)} of {len(replaced(_kept(kept, scale), fresh))} rates replaced in {kept}")


def _kept(path: Path, scale: Scale):
    """What is kept, each row with its scale, which a file of one scale may leave out."""
    import pandas as pd

    from lrmoclip.report.tables import read
    from lrmoclip.train.choosing import KEYS

    if not path.exists():
        return pd.DataFrame(columns=KEYS)
    found = read(path, KEYS[1:])
    if KEYS[0] not in found:
        found.insert(0, KEYS[0], scale.name)
    return found
