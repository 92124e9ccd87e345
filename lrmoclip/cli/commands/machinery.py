"""How often verdicts err, on simulated families of claims."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale


def options(command) -> None:
    add_scale(command)
    add(command, "claims", "out")


def run(config: Path, claims: Path, out: Path) -> None:
    """Write what `report.verdicts.check_machinery` finds for a study of the scale's shape and as
    many comparisons as the claims have."""
    from lrmoclip.config import load
    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.core.errors import UserError
    from lrmoclip.edge.typed import read_yaml
    from lrmoclip.report import claims as stated
    from lrmoclip.report.verdicts import check_machinery

    scale, said = load(config), read_yaml(claims, stated.Claims)
    if scale.study is None:
        raise UserError(f"{config}: no key 'study'", "Say what the study runs")
    shape = (len(scale.bases), len(scale.study.seeds), ITEMS)
    with artefacts.file(out, "machinery") as made:
        table = check_machinery(shape, family=stated.comparisons(said))
        files.write_text(made.path / Path(out).name, table.round(4).to_csv(index=False))
        made.about |= provenance.stamp(shape=list(shape))


ITEMS = 300  # of a domain's test split, at every scale that has a study
