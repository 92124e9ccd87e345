"""A scale's tables: metrics, table 1, costs and others."""

import warnings
from collections import Counter
from pathlib import Path

from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import Scale, fingerprint, load

LEFT_OUT = ["scale", "base", "domain", "method", "seed", "warning"]  # columns of warnings.csv


def options(command) -> None:
    add_scale(command)
    add(command, "results", "out")
    command.add_argument("--data", type=Path, nargs="*", help="data folders, for their sizes")


def run(config: Path, results: Path, out: Path, data: list[Path] | None = None) -> None:
    tables(load(config), results, out, data)


def tables(scale: Scale, results: Path, out: Path, data: list[Path] | None = None) -> None:
    """Write the tables of one scale (metrics, table1, general, regimes, costs, savings, warnings,
    each a .csv) and provenance.json, from every finished run below the folder `results`.

    Left out, and said so, are runs that are not as the config has them now. data: the scale's data
    folders; without them, table 1 has no training records and no chance.
    """
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.core.errors import UserError
    from lrmoclip.cost import charges
    from lrmoclip.data import records
    from lrmoclip.methods import REFERENCE
    from lrmoclip.report import scored
    from lrmoclip.report.counted import general
    from lrmoclip.report.tables import in_order, regimes, table1, to_csv

    found = scored.load(scored.finished(results), scale)
    if not found:
        raise UserError(f"{results}: no finished run", "Train and evaluate first")
    stale = scored.left_out(found, scale)
    for path, reason in stale.items():
        warnings.warn(f"{path.parent}: left out, {reason}", stacklevel=1)
    times = charges.timings_below(results, scale)
    runs = in_order(
        (run for run in found if run.path not in stale and _is_shown(run, scale, times)), scale
    )
    seeds = Counter(each.key for each in runs)
    costs, savings, said = [], {}, []
    for each in (each for each in runs if each.method != "base"):
        point, timed = scale.point(*each.key[1:]), times.get(each.key[1:3], {"step_s": {}})
        if each.method not in timed["step_s"]:
            raise UserError(
                f"{each.path.parent}: no timings of {each.method} (base {each.key[1]}, domain "
                f"{each.key[2]})",
                f"Make them: lrmoclip timings, into {results}",
            )
        costs += charges.cost_rows(each.record, point, timed, each.wall_s)
        if REFERENCE in timed["step_s"]:
            reference = scale.method(REFERENCE)
            savings[each.key] = charges.saving_row(
                each.record, point, reference, timed, seeds[each.key]
            )
        head = {key: each.record[key] for key in LEFT_OUT[:-1]}
        said += [head | {"warning": words} for words in each.record["warnings"]]
    said += _without_reference(runs)
    sizes = records.sizes(records.Data(data), {each.key[2] for each in runs}) if data else None
    cost_table = pd.DataFrame(costs)
    texts = {
        "metrics.csv": to_csv(scored.metrics_table(runs)),
        "table1.csv": to_csv(table1(runs, cost_table, scale, sizes)),
        "general.csv": to_csv(general(runs, scale)),
        "regimes.csv": to_csv(regimes(runs)),
        "costs.csv": cost_table.to_csv(index=False),
        "savings.csv": pd.DataFrame(savings.values(), columns=charges.SAVINGS).to_csv(index=False),
        "warnings.csv": pd.DataFrame(said, columns=LEFT_OUT).to_csv(index=False),
    }
    with artefacts.loose(Path(out) / "provenance.json", "tables", *texts) as made:
        for name, text in texts.items():
            files.write_text(made.path / name, text)
        trained = [each.record for each in runs if each.record]
        made.about |= provenance.stamp(
            config=fingerprint(scale),
            seeds=sorted({record["seed"] for record in trained}),
            commits_of_runs=sorted({record["provenance"]["commit"] for record in trained}),
        )


def _is_shown(run, scale: Scale, times: dict) -> bool:
    """Not what the study alone runs: replicates of a base, methods at other budgets than that of
    the tables, methods that were not asked for and not timed."""
    if run.key[1] in scale.replicates:
        return False
    asked = ["base", *scale.methods]
    timed = times.get(run.key[1:3], {"step_s": {}})["step_s"]
    return run.method in asked or run.method in timed or run.method not in scale.in_study


def _without_reference(runs: list) -> list[dict]:
    """A warning for each base and domain that lacks the method which costs are held against."""
    from lrmoclip.methods import REFERENCE

    places = dict.fromkeys(each.key[:3] for each in runs if each.method != "base")
    there = {each.key[:3] for each in runs if each.method == REFERENCE}
    words = f"{REFERENCE} was not run here: no comparison with it, no cost ratio"
    return [
        dict(zip(LEFT_OUT, (*place, REFERENCE, None, words), strict=True))
        for place in places
        if place not in there
    ]
