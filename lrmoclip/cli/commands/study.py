"""Decide the claims of a scale from its study."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale, add_several
from lrmoclip.config import Scale, fingerprint, load

PROVENANCE = "study_provenance.json"


def options(command) -> None:
    add_scale(command)
    add(command, "results", "claims", "out")
    add_several(command, "sweeps", words="trials of the study's methods, of `lrmoclip tune`")


def run(config: Path, results: Path, claims: Path, sweeps: list[Path], out: Path) -> None:
    """Write study.csv, claims.csv, fronts.csv and equal_rates.csv from the finished runs of the
    study below `results`, and trials."""
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.edge.typed import read_yaml
    from lrmoclip.report import claims as stated
    from lrmoclip.report import fronts, paired, study
    from lrmoclip.report.tables import read
    from lrmoclip.train.choosing import KEYS, SWEEP

    scale, said = load(config), read_yaml(claims, stated.Claims)
    stated.check(said, scale, claims)
    grids = paired.grids(_runs(scale, results), scale)
    choices = read(scale.rates_path, [*KEYS, "budget", "within", "edge"])
    trials = pd.concat([read(path, SWEEP) for path in sweeps], ignore_index=True)
    savings = results / "savings.csv"
    found = stated.Study(
        scale, grids, choices, read(savings) if savings.exists() else pd.DataFrame()
    )
    front = fronts.fronts(trials)
    tables = {
        "study.csv": study.study(grids, scale, choices),
        "claims.csv": stated.decide(said, found),
        "fronts.csv": front,
        "equal_rates.csv": fronts.at_equal_rates(front, said.equal_rates),
    }
    with artefacts.loose(Path(out) / PROVENANCE, "study", *tables) as made:
        for name, table in tables.items():
            files.write_text(made.path / name, table.to_csv(index=False, lineterminator="\n"))
        made.about |= provenance.stamp(config=fingerprint(scale), bases=list(scale.bases))


def _runs(scale: Scale, results: Path) -> list:
    """The base models, and the study's runs as the config has them now; UserError for one that is
    not: a study that is resumed with another config is another study."""
    from lrmoclip.core.errors import UserError
    from lrmoclip.report import scored

    wanted = {"base", *scale.in_study}
    seeds = {0, *scale.study.seeds}
    found = [
        run
        for run in scored.load(_paths(scale, results), scale)
        if run.method in wanted and run.seed in seeds
    ]
    if stale := scored.left_out(found, scale):
        path, reason = next(iter(stale.items()))
        raise UserError(
            f"{path.parent}: {reason}",
            "Go on with the config that it was begun with, or make what is missing: "
            ".venv/bin/snakemake --cores all study",
        )
    return found


def _paths(scale: Scale, results: Path) -> list[Path]:
    from lrmoclip.report import scored

    methods = {"base", *scale.in_study}
    return [path for path in scored.finished(results) if path.parent.parent.name in methods]
