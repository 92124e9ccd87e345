"""`plan_check.csv`: how far plans are from what was measured, by the kept costs of each scale.

One number is fitted for each scale, the FLOP/s that its device achieves, on the steps of full_ft
alone; all other rows are predicted with it. `error_as_stated` is the error with the rate that
`devices.yaml` states, as in plan.csv."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from lrmoclip.config.device import Device
from lrmoclip.cost.plan.jobs import Jobs
from lrmoclip.cost.plan.workload import Workload
from lrmoclip.methods import REFERENCE
from lrmoclip.report.scored import KEYS
from lrmoclip.report.tables import read
from lrmoclip.train.memory import GB

CHECK = [
    *KEYS,
    *("quantity", "device", "predicted", "measured", "error", "error_as_stated", "fitted"),
    "achieved_flops",
]
# quantity: the stage of costs.csv that it is of, and its prediction
QUANTITIES: dict[str, tuple[str, Callable[[Jobs, str, str], float]]] = {
    "step_s": ("stage1", lambda jobs, domain, method: jobs.step_seconds(domain, method)),
    "peak_memory_gb": ("stage1", lambda jobs, domain, method: _peak_gb(jobs, domain, method)),
    "stage0_s": ("stage0", lambda jobs, domain, method: jobs.stage0(domain).seconds),
    "fisher_s": ("fisher", lambda jobs, domain, method: jobs.fisher().seconds),
    "evaluation_s": ("evaluation", lambda jobs, domain, method: jobs.evaluate(domain).seconds),
}


def check(work: Workload, reference: Path, devices: Mapping[str, Device]) -> pd.DataFrame:
    """The rows of plan_check.csv for the scale of `work`, against reference/<scale>/costs.csv.

    Seconds of a step, of Stage 0, of the Fisher and of one evaluation (medians over seeds); peak
    memory in GB, of the first seed, which shows no earlier one's peak. error: predicted / measured
    - 1. fitted: the rows from which the rate was fitted, whose error says little. Empty where
    nothing measured has one of the devices.
    """
    costs = read(Path(reference) / work.scale.name / "costs.csv")
    costs = costs[costs["method"].isin(work.scale.points) & costs["base"].isin(work.scale.bases)]
    tables = [pd.DataFrame(columns=CHECK)]
    for words, found in costs.groupby("device", sort=False):
        if name := _named(words, devices):
            tables.append(_checked(work, _measured(work, found), name, devices[name]))
    return pd.concat(tables[1:] or tables, ignore_index=True)[CHECK]


def _measured(work: Workload, costs: pd.DataFrame) -> pd.DataFrame:
    """KEYS, quantity and the value that was measured."""
    rows = []
    for quantity, (stage, _) in QUANTITIES.items():
        for names, found in costs[costs["stage"] == stage].groupby(KEYS, sort=False):
            value = 3600 * found["device_hours"].median()
            if quantity == "step_s":
                value /= work.steps(found["domain"].iloc[0]) * max(1, work.scale.gpus)
            elif quantity == "peak_memory_gb":
                value = found.loc[found["seed"].idxmin(), "peak_memory_mb"] * 1e6 / GB
            rows.append([*names, quantity, value])
    return pd.DataFrame(rows, columns=[*KEYS, "quantity", "measured"])


def _checked(work: Workload, found: pd.DataFrame, name: str, stated: Device) -> pd.DataFrame:
    """The rows of what was found on one device."""
    fitted = (found["quantity"] == "step_s") & (found["method"] == REFERENCE)
    device = _fitted(work, found[fitted], stated) if fitted.any() else stated
    achieved = Jobs(work, work.scale, "", device).rate("train")
    predicted, as_stated = (_predicted(work, found, d) for d in (device, stated))

    def four(values: pd.Series) -> pd.Series:
        return values.map(lambda value: float(f"{value:.4g}"))

    return found.assign(
        device=name, predicted=four(predicted), measured=four(found["measured"]),
        error=(predicted / found["measured"] - 1).round(3),
        error_as_stated=(as_stated / found["measured"] - 1).round(3),
        fitted=fitted, achieved_flops=float(f"{achieved:.4g}"),
    )  # fmt: skip


def _predicted(work: Workload, rows: pd.DataFrame, device: Device) -> pd.Series:
    jobs = {base: Jobs(work, work.scale, base, device) for base in work.scale.bases}
    asked = zip(rows["quantity"], rows["base"], rows["domain"], rows["method"], strict=True)
    return pd.Series(
        [QUANTITIES[quantity][1](jobs[base], *names) for quantity, base, *names in asked],
        rows.index, float,
    )  # fmt: skip


def _fitted(work: Workload, steps: pd.DataFrame, device: Device) -> Device:
    """The device with the rate at which the relative errors of `steps` are least in squares.

    Seconds are linear in 1 / rate, of a GPU where it is slow: two predictions give both terms.
    """

    def at(share: float) -> Device:
        update = {device.precision(work.scale.precision): share}
        return device.model_copy(update={"achieved": device.achieved.model_copy(update=update)})

    unit = 0.02
    once, half = (_predicted(work, steps, at(a)) / steps["measured"] for a in (unit, unit / 2))
    slope, rest = half - once, 2 * once - half
    best = (slope * (1 - rest)).sum() / (slope**2).sum()
    return at(unit / best) if best > 0 else device


def _peak_gb(jobs: Jobs, domain: str, method: str) -> float:
    # The allocator of a GPU does not count what libraries hold; a process's memory does.
    held = jobs.device.reserved_gb if jobs.device.kind == "cpu" else 0.0
    return jobs.train(domain, method).memory / GB + held


def _named(words: str, devices: Mapping[str, Device]) -> str | None:
    """The stated device that a measurement's `device` means: any CPU is ours."""
    for name, device in devices.items():
        if words.startswith("cpu") if device.kind == "cpu" else name.split("-")[0] in words.lower():
            return name
    return None
