"""What is made of runs, or predicted of them: plans, tables, figures, the README's results."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lrmoclip.cli.commands.inputs import data as write_data
from lrmoclip.cli.commands.process import set_threads
from lrmoclip.config import scale as config
from lrmoclip.config.scale import Scale
from lrmoclip.core import artefacts, files, provenance
from lrmoclip.core.errors import UserError
from lrmoclip.data import records as record_files
from lrmoclip.report.evaluations import EVALUATION, METRICS_FILE, RECORD, RUN

PLOT = "![Domain gain against general loss](results/reference/{scale}/forgetting.png)"
WARNED = ["scale", "base", "domain", "method", "seed", "warning"]  # columns of warnings.csv


def plan(
    scale: Scale,
    devices: Path,
    reference: Path,
    out: Path,
    root: Path | None = None,
    methods: list[str] | None = None,
    seeds: list[int] | None = None,
) -> None:
    """Write plan.csv, what every rule of the scale will take, and beside it plan_check.csv, how far
    such a plan is from what is kept of scales that were run; print both in a few lines.

    devices: their file, beside the configs of kept scales. reference: the folder with the kept
    tables of each scale. root: the folder of the scale's results, whose data and base are read
    where they are there. methods, seeds: instead of the scale's lists.
    """
    from dataclasses import replace

    import pandas as pd

    from lrmoclip.cost import devices as stated
    from lrmoclip.cost import plan as library
    from lrmoclip.cost import plan_check
    from lrmoclip.report.tables import to_csv

    lists = {"methods": methods, "seeds": seeds}
    given = {key: values for key, values in lists.items() if values}
    scale = replace(scale, settings={**scale.settings, **given})
    known = stated.load(devices)
    chosen = [d for d in known.values() if d.cuda == ("gpus" in scale.settings)]
    with _workload(scale, root) as work:
        planned = library.plan(work, chosen)
    checks = []
    for name in plan_check.kept_scales(reference):
        path = Path(devices).with_name(f"{name}.yaml")
        other = scale if name == scale.name else config.load(path) if path.exists() else None
        if other is not None:
            with _workload(other, Path(root).parent / name if root else None) as work:
                checks.append(plan_check.check(work, reference, known))
    none = [pd.DataFrame(columns=plan_check.CHECK)]
    checked = pd.concat(checks or none, ignore_index=True)
    predicted = library.predicted_table1(scale, planned)
    texts = {
        Path(out).name: planned.to_csv(index=False),
        "plan_check.csv": checked.to_csv(index=False),
        "predicted_table1.csv": to_csv(predicted),
    }
    with artefacts.loose(Path(out).with_suffix(".json"), "plan", *texts) as made:
        for name, text in texts.items():
            files.write_text(made.path / name, text)
        made.about |= provenance.stamp()
    print(library.summary(planned))
    print(plan_check.summary(checked))
    if "smollm2" not in set(checked["scale"]):
        print("No results of smollm2 are kept: checked against micro alone.")


@contextmanager
def _workload(scale: Scale, root: Path | None):
    """What the scale's jobs work on; data that a moment makes are made where they are missing."""
    from lrmoclip.cost.workload import Workload

    if scale["data"]["generator"] != "micro" or (root and (Path(root) / "data").exists()):
        yield Workload(scale, root)
        return
    with TemporaryDirectory() as folder:
        write_data(scale, Path(folder) / "data")
        yield Workload(scale, Path(folder))


def tables(
    scale: Scale, runs: list[Path], timed: list[Path], out: Path, data: Path | None = None
) -> None:
    """Write the tables of one scale (metrics, table1, general, regimes, costs, savings, warnings,
    each a .csv) and provenance.json.

    runs: folders with metrics.json and, but for the base, run.json. timed: files of `timings`.
    data: the scale's data folder; without it, table 1 has no training records and no chance.
    """
    import pandas as pd

    from lrmoclip.cost import costs
    from lrmoclip.report.counted import general
    from lrmoclip.report.evaluations import load, metrics_table
    from lrmoclip.report.tables import data_sizes, regimes, table1, to_csv

    by_domain = {
        (times["base"], times["domain"]): times
        for times in (_of_scale(scale, path, costs.TIMINGS) for path in timed)
    }
    trained = [Path(folder) for folder in runs if (Path(folder) / RECORD).exists()]
    records = [_of_scale(scale, folder / RECORD, RUN) for folder in trained]
    seeds = Counter((run["base"], run["domain"], run["method"]) for run in records)
    cost_rows, savings, warned = [], {}, []
    for folder, run in zip(trained, records, strict=True):
        method = scale.method(run["method"])
        times = by_domain.get((run["base"], run["domain"]), {"step_s": {}})
        if run["method"] not in times["step_s"]:
            raise UserError(
                f"{folder}: no timings of {run['method']} (base {run['base']}, domain "
                f"{run['domain']})",
                "Name the timings.json that has them with --timed",
            )
        evaluation_s = _of_scale(scale, folder / METRICS_FILE, EVALUATION)["wall_s"]
        cost_rows += costs.cost_rows(run, method, times, evaluation_s)
        if "full_ft" in times["step_s"]:
            key = (run["base"], run["domain"], run["method"])
            full = scale.method("full_ft")
            savings[key] = costs.saving_row(run, method, full, times, seeds[key])
        warned += [{k: run[k] for k in WARNED[:-1]} | {"warning": w} for w in run["warnings"]]
    metrics = [Path(folder) / METRICS_FILE for folder in runs]
    cost_table = pd.DataFrame(cost_rows)
    loaded = load(metrics, scale.settings)
    folder = record_files.folder(data) if data else None
    sizes = data_sizes(folder, {run.key[2] for run in loaded}) if folder else None
    scores = table1(loaded, cost_table, scale.settings, scale["methods"], sizes)
    texts = {
        "metrics.csv": to_csv(metrics_table(metrics)),
        "table1.csv": to_csv(scores),
        "general.csv": to_csv(general(loaded, scale.settings)),
        "regimes.csv": to_csv(regimes(loaded)),
        "costs.csv": cost_table.to_csv(index=False),
        "savings.csv": pd.DataFrame(savings.values(), columns=costs.SAVINGS).to_csv(index=False),
        "warnings.csv": pd.DataFrame(warned, columns=WARNED).to_csv(index=False),
    }
    with artefacts.loose(Path(out) / "provenance.json", "tables", *texts) as made:
        for name, text in texts.items():
            files.write_text(made.path / name, text)
        made.about |= provenance.stamp(
            config=config.fingerprint([scale.settings, scale.methods]),
            seeds=sorted({run["seed"] for run in records}),
            commits_of_runs=sorted({run["provenance"]["commit"] for run in records}),
        )


def _of_scale(scale: Scale, path: Path, kind: str) -> dict:
    """A sealed JSON's content. UserError for one of another scale."""
    content = files.read_sealed(path, kind)
    if content["scale"] != scale.name:
        raise UserError(
            f"{path}: of the scale {content['scale']!r}, not {scale.name!r}", "Name its own"
        )
    return content


def gather(tables: list[Path], out: Path) -> None:
    """Write the rows of several scales' table1.csv as one."""
    from lrmoclip.report import tables as library

    gathered = library.gather(library.read_table1(path) for path in tables)
    with artefacts.file(out, "tables") as made:
        files.write_text(made.path / Path(out).name, library.to_csv(gathered))
        made.about |= provenance.stamp()


def figure(table: Path, out: Path) -> None:
    """Draw the forgetting plot of a table1.csv as `out`.png and `out`.svg."""
    from lrmoclip.report import tables as library
    from lrmoclip.report.figures import forgetting_plot

    _draw(out, lambda png, svg: forgetting_plot(library.read_table1(table), png, svg))


def benchmarks(threads: int, out: Path) -> None:
    """Write benchmarks.csv: store, loss and optimizer in turns with what others use."""
    from lrmoclip.speed import run

    with artefacts.file(out, "benchmarks") as made:
        set_threads(threads)
        files.write_text(made.path / Path(out).name, run().to_csv(index=False))
        made.about |= provenance.stamp()


def scaling(table: Path, out: Path) -> None:
    """Draw the scaling rows of a benchmarks.csv as `out`.png and `out`.svg."""
    from lrmoclip.report.tables import read
    from lrmoclip.speed import COLUMNS
    from lrmoclip.speed.report import scaling_plot

    _draw(out, lambda png, svg: scaling_plot(read(table, COLUMNS), png, svg))


def _draw(out: Path, draw: Callable[[Path, Path], None]) -> None:
    """Make a figure as two files, and what says where they are from."""
    png, svg = (Path(out).with_suffix(f".{kind}") for kind in ("png", "svg"))
    with artefacts.loose(png.with_suffix(".json"), "figure", png.name, svg.name) as made:
        draw(made.path / png.name, made.path / svg.name)
        made.about |= provenance.stamp()


def show(results: Path) -> None:
    """Print the tables of each scale in table1.csv of the results folder, and say where files
    are."""
    from lrmoclip.report import render
    from lrmoclip.report.tables import read, read_table1

    for scale in read_table1(Path(results) / "table1.csv")["scale"].unique():
        folder = Path(results) / scale
        print(render.report(folder))
        print(render.regimes(read(folder / "regimes.csv")))
        print(render.warnings(read(folder / "warnings.csv")))
        print(f"Files: {folder}/*.csv, {folder}/figures/")


def readme(reference: Path, into: Path) -> None:
    """Write what is kept as Markdown between its markers in the file `into`: the tables of every
    scale (a scale with markers and nothing kept says so), the regimes of all, the benchmarks."""
    import pandas as pd

    from lrmoclip.report import render
    from lrmoclip.report.tables import read
    from lrmoclip.speed.report import markdown

    reference, document = Path(reference), files.read_text(into)
    kept = sorted(path.parent.name for path in reference.glob("*/table1.csv"))
    if not kept:
        raise UserError(f"{reference}: no scale's table1.csv", "Name results/reference")
    marked = re.findall(r"^<!-- table 1: (\w+) -->$", document, re.MULTILINE)
    scales = dict.fromkeys(marked + kept)
    for scale in scales:
        text = f"{render.NOT_KEPT}\n"
        if scale in kept:
            text = render.report(reference / scale, render.MARKDOWN)
        if (reference / scale / "forgetting.png").exists():
            text += f"\n{PLOT.format(scale=scale)}\n"
        document = _between(document, f"table 1: {scale}", text, into)
    found = (read(reference / scale / "regimes.csv") for scale in scales if scale in kept)
    regimes = pd.concat(found, ignore_index=True)
    document = _between(document, "regimes", render.regimes(regimes, render.MARKDOWN), into)
    devices = sorted(reference.glob("benchmarks*.csv"))  # one a device
    measured = "\n".join(markdown(read(path)) for path in devices)
    artefacts.edit(into, _between(document, "benchmarks", measured, into))


def _between(document: str, name: str, text: str, path: Path) -> str:
    """The document with `text` between the markers of `name`."""
    markers = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if [document.count(marker) for marker in markers] != [1, 1]:
        raise UserError(
            f"{path}: needs one pair of markers", " and ".join(markers).replace("\n", "")
        )
    before, rest = document.split(markers[0])
    return before + markers[0] + text + markers[1] + rest.split(markers[1])[1]
