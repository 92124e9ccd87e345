"""Predict time, memory, disk and cost of a scale, and check such predictions by what is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lrmoclip.cli.commands import data
from lrmoclip.cli.options import add, add_scale
from lrmoclip.config import Scale, load
from lrmoclip.config.parts import MicroData


def options(command) -> None:
    add_scale(command)
    add(command, "devices", "reference", "out")
    add(command, "root", required=False)


def run(config: Path, devices: Path, reference: Path, out: Path, root: Path | None = None) -> None:
    """Write plan.csv, beside it plan_check.csv and predicted_table1.csv; print both in a few lines.

    devices: their file, beside the configs of kept scales. reference: the folder with the kept
    tables of each scale. root: results/<scale>, whose data and base are read where they are there.
    """
    import pandas as pd

    from lrmoclip.config import device
    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.cost.plan import check, table
    from lrmoclip.report.tables import to_csv

    scale, known = load(config), device.load(devices)
    chosen = {name: d for name, d in known.items() if (d.kind == "cuda") == (scale.gpus > 0)}
    with _workload(scale, root) as work:
        planned = table.plan(work, chosen)
    checks = [pd.DataFrame(columns=check.CHECK)]
    for costs in sorted(Path(reference).glob("*/costs.csv")):
        name = costs.parent.name
        path = Path(devices).with_name(f"{name}.yaml")
        if name == scale.name or path.exists():
            other = scale if name == scale.name else load(path)
            with _workload(other, Path(root).parent / name if root else None) as work:
                checks.append(check.check(work, reference, known))
    checked = pd.concat(checks[1:] or checks, ignore_index=True)
    texts = {
        Path(out).name: planned.to_csv(index=False),
        "plan_check.csv": checked.to_csv(index=False),
        "predicted_table1.csv": to_csv(table.predicted_table1(scale, planned)),
    }
    with artefacts.loose(Path(out).with_suffix(".json"), "plan", *texts) as made:
        for name, text in texts.items():
            files.write_text(made.path / name, text)
        made.about |= provenance.stamp()
    default = planned[planned["rule"] != "tune"].assign(does_not_fit=lambda rows: ~rows["fits"])
    shown = ["gpu_hours", "usd", "disk_gb", "does_not_fit"]
    print(default.groupby("device", sort=False)[shown].sum().to_string())
    errors = checked[~checked["fitted"].astype(bool)].groupby(["scale", "quantity"])["error"]
    print(errors.agg(["median", "min", "max"]).to_string())


@contextmanager
def _workload(scale: Scale, root: Path | None) -> Iterator:
    """What the scale's jobs work on; data that a moment makes are made where they are missing."""
    from lrmoclip.cost.plan.workload import Workload

    if not isinstance(scale.data, MicroData) or (root and (Path(root) / "data").exists()):
        yield Workload(scale, root)
        return
    with TemporaryDirectory() as folder:
        data.write(scale, Path(folder) / "data")
        yield Workload(scale, Path(folder))
