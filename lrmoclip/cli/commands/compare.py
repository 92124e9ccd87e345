"""Hold your own runs against a kept study."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import load


def options(command) -> None:
    add_scale(command)
    add(command, "results", "kept")
    add(command, "out", required=False)


def run(config: Path, results: Path, kept: Path, out: Path | None = None) -> None:
    """Print, for each base below `results`, whether what its runs measured lies where a new base
    may lie by the study.csv that was `kept`, and how surprising that is; with `out` a table, too.

    Runs that are not as the config has them now are left out, and said so.
    """
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.report import compare
    from lrmoclip.report.study import STUDY
    from lrmoclip.report.tables import read

    scale, reference, tables = load(config), read(kept, STUDY), []
    for base, mine in _by_base(scale, results).items():
        table = compare.compare(mine, reference)
        print(f"{base} ({scale.name})\n\n{compare.words(table)}\n")
        tables.append(table.assign(base=base))
    if out is not None:
        with artefacts.file(out, "comparison") as made:
            text = pd.concat(tables).to_csv(index=False, lineterminator="\n")
            files.write_text(made.path / Path(out).name, text)
            made.about |= provenance.stamp()


def _by_base(scale, results: Path) -> dict:
    """The frame of `study.csv` of each base alone."""
    import warnings

    import pandas as pd

    from lrmoclip.core.errors import UserError
    from lrmoclip.report import paired, scored, study

    found = scored.load(scored.finished(results), scale)
    stale = scored.left_out(found, scale)
    for path, reason in stale.items():
        warnings.warn(f"{path.parent}: left out, {reason}", stacklevel=1)
    by_base: dict[str, list] = {}
    for each in found:
        if each.path not in stale:
            by_base.setdefault(each.key[1], []).append(each)
    trained = {
        base: runs for base, runs in by_base.items() if any(r.method != "base" for r in runs)
    }
    if not trained:
        raise UserError(f"{results}: no finished run", "Train and evaluate first")
    none = pd.DataFrame(columns=["domain", "method"])
    return {
        base: study.study(paired.grids(runs, scale), scale, none) for base, runs in trained.items()
    }
