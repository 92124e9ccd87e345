"""How far the plan is from what was measured: `plan_check.csv`, from the kept costs of every scale
that was run.

One number is fitted for each scale, the FLOP/s that its device achieves, on the steps of full_ft
alone; all other rows are predicted with it. `error_as_stated` is the error with the rate that
`devices.yaml` states, as in plan.csv."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from lrmoclip.config.scale import Scale
from lrmoclip.cost.devices import Device
from lrmoclip.cost.jobs import Jobs
from lrmoclip.cost.plan import GB
from lrmoclip.cost.workload import Workload
from lrmoclip.report.tables import KEYS, read

CHECK = [
    *KEYS,
    *("quantity", "device", "predicted", "measured", "error", "error_as_stated", "fitted"),
    "achieved_flops",
]
FITTED = "full_ft"
SECONDS = {  # stage of costs.csv -> quantity
    **{"stage1": "step_s", "stage0": "stage0_s"},
    **{"fisher": "fisher_s", "evaluation": "evaluation_s"},
}


def kept_scales(reference: Path) -> list[str]:
    """The scales whose measured costs are kept."""
    return sorted(path.parent.name for path in Path(reference).glob("*/costs.csv"))


def check(work: Workload, reference: Path, known: dict[str, Device]) -> pd.DataFrame:
    """The rows of plan_check.csv for the scale of `work`, against reference/<scale>/.

    Seconds of a step, of Stage 0, of the Fisher and of one evaluation (medians over seeds); peak
    memory in GB, of the first seed, which shows no earlier one's peak. error: predicted / measured
    - 1. fitted: the rows from which the rate was fitted, whose error says little. Empty where
    nothing measured has a device in `known`.
    """
    folder = Path(reference) / work.scale.name
    costs, savings = read(folder / "costs.csv"), read(folder / "savings.csv")
    work = replace(work, scale=_with_sets(work.scale, savings))
    rows = []
    for words, measured in costs.groupby("device", sort=False):
        device = _device(words, known)
        if device is not None:
            rows += _rows(work, measured, device)
    return pd.DataFrame(rows, columns=CHECK)


def _rows(work: Workload, costs: pd.DataFrame, stated: Device) -> list[dict]:
    found = _measured(work, costs, stated)
    precision = work.scale.settings.get("precision", "float32")
    threads = work.scale["threads"]["train"]
    steps = [m for m in found if m.quantity == "step_s" and m.key["method"] == FITTED]
    fitted = _fit(work, steps, stated, precision, threads) if steps else stated
    rows = []
    for each in found:
        values = [_predicted(work, each, device) for device in (fitted, stated)]
        errors = [value / each.value - 1 for value in values]
        rows.append(
            {
                **each.key,
                "quantity": each.quantity,
                "device": stated.name,
                "predicted": _rounded(values[0]),
                "measured": _rounded(each.value),
                "error": round(errors[0], 3),
                "error_as_stated": round(errors[1], 3),
                "fitted": each in steps,
                "achieved_flops": _rounded(fitted.rate(precision, threads)),
            }
        )
    return rows


@dataclass(frozen=True)
class Measured:
    """One measurement; key: scale, base, domain, method."""

    key: dict[str, str]
    quantity: str
    value: float


def _measured(work: Workload, costs: pd.DataFrame, device: Device) -> list[Measured]:
    scale = work.scale
    gpus = scale.settings.get("gpus", 1) if device.cuda else 1
    known = costs[costs["method"].isin(scale.methods) & costs["base"].isin(list(scale["bases"]))]
    found = []
    for (stage, *names), rows in known.groupby(["stage", *KEYS], sort=False):
        if stage not in SECONDS:
            continue
        key, seconds = dict(zip(KEYS, names, strict=True)), 3600 * rows["device_hours"].median()
        if stage == "stage1":
            seconds /= _steps(work, key["domain"]) * gpus
        found.append(Measured(key, SECONDS[stage], seconds))
        if stage == "stage1":
            first = rows.loc[rows["seed"].idxmin(), "peak_memory_mb"]
            found.append(Measured(key, "peak_memory_gb", first * 1e6 / GB))
    return found


def _steps(work: Workload, domain: str) -> int:
    stage1 = work.scale["stage1"]
    return math.ceil(stage1["epochs"] * work.training(domain).records / stage1["batch_size"])


def _predicted(work: Workload, measured: Measured, device: Device) -> float:
    scale, name = work.scale, measured.key["domain"]
    jobs = Jobs(work, work.shape(measured.key["base"]), device)
    method = scale.method(measured.key["method"])
    if measured.quantity == "peak_memory_gb":
        # The allocator of a GPU does not count what libraries hold; a process's memory does.
        held = 0 if device.cuda else device.reserved
        return (jobs.training_memory(method, name) + held) / GB
    if measured.quantity == "step_s":
        return jobs.step_seconds(method, name)
    if measured.quantity == "stage0_s":
        return jobs.stage0(name).seconds
    return (jobs.fisher() if measured.quantity == "fisher_s" else jobs.evaluate(name)).seconds


def _fit(
    work: Workload, steps: list[Measured], device: Device, precision: str, threads: int
) -> Device:
    """The device with the rate at which the relative errors of `steps` are least in squares.

    Seconds are linear in 1 / rate: two predictions give both terms.
    """
    once = replace(device, flops={key: 1e12 for key in device.flops})
    half = replace(device, flops={key: 5e11 for key in device.flops})
    fast, slow = ([_predicted(work, m, d) / m.value for m in steps] for d in (once, half))
    slopes = [b - a for a, b in zip(fast, slow, strict=True)]  # of 1e12 / rate
    rests = [a - slope for a, slope in zip(fast, slopes, strict=True)]
    best = sum(s * (1 - r) for s, r in zip(slopes, rests, strict=True)) / sum(s * s for s in slopes)
    if best <= 0:
        return device
    return replace(device, flops={**device.flops, precision: 1e12 / best})


def _with_sets(scale: Scale, savings: pd.DataFrame) -> Scale:
    """The scale with the mean size of the sets that were measured on each domain."""
    said = dict(scale.settings.get("plan", {}))
    for domain, sizes in savings.dropna(subset="set_size_mean").groupby("domain")["set_size_mean"]:
        said[domain] = {**said.get(domain, {}), "set_size": sizes.max()}
    return replace(scale, settings={**scale.settings, "plan": said})


def _device(words: str, known: dict[str, Device]) -> Device | None:
    """The stated device that a measurement's `device` names: any CPU is ours."""
    for device in known.values():
        short = device.name.split("-")[0]
        if words.startswith("cpu") if not device.cuda else short in words.lower():
            return device
    return None


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def summary(checked: pd.DataFrame) -> str:
    """A line a scale and quantity: the median of the errors and the largest, fitted rows left
    out."""
    rows = checked[~checked["fitted"].astype(bool)]
    lines = []
    for (scale, quantity), found in rows.groupby(["scale", "quantity"], sort=False):
        errors = found["error"]
        worst = errors.loc[errors.abs().idxmax()]
        lines.append(
            f"{scale}, {quantity}: error {errors.median():+.0%} in the median of {len(found)}, "
            f"{worst:+.0%} at most"
        )
    return "\n".join(lines)
