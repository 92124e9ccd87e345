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
    from lrmoclip.train.tuning import KEYS, RATES, replaced

    names = {rates.name: scale.rates_path.name, "tuning.csv": "tuning.csv"}
    described, kept = "tuning_provenance.json", scale.rates_path.parent
    about = files.read_sealed(rates.with_name(described), RATES)
    before = kept / described
    known = files.read_sealed(before, RATES) if before.exists() else {}
    with artefacts.loose(before, RATES, *names.values()) as made:
        for new, old in names.items():
            fresh = read(rates.with_name(new), KEYS)
            there = read(kept / old, KEYS) if (kept / old).exists() else fresh.iloc[:0]
            table = replaced(there, fresh)
            files.write_text(made.path / old, table.to_csv(index=False))
            if new == rates.name:
                keys = [" ".join(row) for row in fresh[KEYS].itertuples(index=False)]
                print(f"{len(keys)} of {len(table)} rates replaced in {scale.rates_path}")
        of = {key: about["commit"] for key in keys}
        made.about |= {k: v for k, v in about.items() if k != "files"}
        made.about["commits"] = known.get("commits", {}) | of
