"""What a scale will take before anything is submitted: `plan.csv`, a row a rule, job kind and
device, and the refusal of a run that this machine's memory cannot hold.

All of it is predicted (`cost.jobs`, `cost.footprint`), from configs and counts of tokens; how well,
says `plan_check.csv` (`cost.plan_check`)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd

from lrmoclip.config import scale as config
from lrmoclip.core.errors import UserError
from lrmoclip.cost import devices
from lrmoclip.cost.devices import Device
from lrmoclip.cost.footprint import shape_of_checkpoint
from lrmoclip.cost.jobs import Jobs, Need
from lrmoclip.cost.workload import Load, Workload
from lrmoclip.report.tables import PREDICTED, TABLE1
from lrmoclip.train import sharding

PLAN = [
    *("scale", "rule", "base", "domain", "method", "jobs", "device", "gpus", "gpu_hours_per_job"),
    *("gpu_hours", "wall_hours", "peak_memory_gb", "disk_gb", "usd", "fits", "what_would_fit"),
]
GPUS = (2, 4, 8, 16, 32, 64)
GB = 1e9
ELSEWHERE = "a device with more memory"
WITHOUT_EWC = f"{ELSEWHERE}, or methods without ewc"


def plan(work: Workload, chosen: list[Device]) -> pd.DataFrame:
    """The rows of plan.csv: every rule of the scale on each of the `chosen` devices.

    gpus: that one job uses, 0 on a CPU, whose hours then count as gpu_hours. wall_hours: of all
    jobs one after the other. disk_gb: what all jobs leave. peak_memory_gb: of each GPU, or of the
    process. fits: within the device's memory less what is lost between tensors (`Device.room`);
    where it does not, what_would_fit says what would. The rule `tune` is not part of a default run.
    """
    rows = []
    for device in chosen:
        for base, spec in work.scale["bases"].items():
            jobs = Jobs(work, work.shape(base), device)
            for rule, domain, method, count, gpus, need in _kinds(jobs, base, spec):
                row = {"scale": work.scale.name, "rule": rule, "base": base, "domain": domain}
                row |= {"method": method, "jobs": count} | _costs(device, gpus, count, need)
                fits, room = need.memory <= device.room, device.room
                row["fits"] = fits
                row["what_would_fit"] = "" if fits else remedies(jobs, rule, domain, method, room)
                rows.append(row)
    table = pd.DataFrame(rows, columns=PLAN)
    numbers = table.select_dtypes("float").columns
    table[numbers] = table[numbers].map(lambda value: float(f"{value:.4g}"))
    return table


def _kinds(jobs: Jobs, base: str, spec: dict) -> Iterator[tuple]:
    """(rule, domain, method, jobs, GPUs a job, Need of one job) of one base."""
    scale = jobs.scale
    each = scale["seeds_per_job"]
    groups = math.ceil(len(scale["seeds"]) / each)
    points = {name: scale.method(name) for name in scale["methods"]}
    domains = [name for name, said in scale["domains"].items() if not said.get("optional")]
    with_sets = [point for point in points.values() if config.needs_sets(point)]
    yield "base", "", "", 1, 1, jobs.base(spec)
    if any(point["penalty"]["name"] == "ewc" for point in points.values()):
        yield "fisher", "replay", "", 1, 1, jobs.fisher()
    sources = domains if with_sets else []
    if any(point["replay"] for point in with_sets):
        sources = [*sources, "replay"]
    for name in sources:
        yield "stage0", name, "", 1, 1, jobs.stage0(name)
    for domain in domains:
        scored = jobs.evaluate(domain)
        yield "evaluate_base", domain, "base", 1, 1, scored
        for name, point in points.items():
            yield "train", domain, name, groups, jobs.gpus, _times(each, jobs.train(point, domain))
            yield "evaluate", domain, name, groups, 1, _times(each, scored)
        timed = jobs.timings(domain, jobs.device.room)
        yield "timings", domain, "", 1, jobs.gpus, timed
        for name, point in points.items():
            yield "tune", domain, name, 1, jobs.gpus, jobs.tune(point, domain)


def _times(count: int, need: Need) -> Need:
    return Need(count * need.seconds, need.memory, count * need.disk)


def _costs(device: Device, gpus: int, count: int, need: Need) -> dict:
    hours = need.seconds / 3600
    return {
        "device": device.name,
        "gpus": gpus if device.cuda else 0,
        "gpu_hours_per_job": hours * gpus,
        "gpu_hours": hours * gpus * count,
        "wall_hours": hours * count,
        "peak_memory_gb": (need.memory + device.reserved) / GB,
        "disk_gb": need.disk * count / GB,
        "usd": hours * gpus * count * device.usd_per_hour,
    }


def remedies(jobs: Jobs, rule: str, domain: str, method: str, room: float) -> str:
    """What would make a job fit into `room` bytes a device, the mildest change first; all that are
    enough by themselves, else a device with more memory."""
    if rule in ("evaluate", "evaluate_base"):
        size = jobs.scale["evaluation"]["batch_size"]
        fitting = [n for n in _halves(size) if jobs.evaluation_memory(domain, size=n) <= room]
        return f"evaluation.batch_size {fitting[0]}" if fitting else ELSEWHERE
    if rule == "stage0":
        size = jobs.scale["stage0"]["batch_size"]
        fitting = [n for n in _halves(size) if jobs.stage0_memory(domain, n) <= room]
        return f"stage0.batch_size {fitting[0]}" if fitting else ELSEWHERE
    if rule == "fisher":
        return WITHOUT_EWC
    if rule == "timings":
        return WITHOUT_EWC if _timed_without_ewc(jobs, domain, room) <= room else ELSEWHERE
    if rule not in ("train", "tune"):
        return ELSEWHERE
    name = method or jobs.scale["methods"][0]
    needs: Callable[..., float] = _training_needs(jobs, jobs.scale.method(name), domain)
    stage1 = jobs.scale["stage1"]
    batch = stage1.get("micro_batch", stage1["batch_size"])
    fitting = [n for n in _halves(batch) if needs(micro_batch=n) <= room]
    found = [f"micro_batch {fitting[0]}"] if fitting else []
    once = {"micro_batch": 1, "gradient_checkpointing": True}
    if not stage1.get("gradient_checkpointing"):
        if needs(gradient_checkpointing=True) <= room:
            found.append("gradient checkpointing")
        elif needs(**once) <= room:
            found.append("gradient checkpointing with micro_batch 1")
    if jobs.device.cuda:
        enough = [count for count in GPUS if count > jobs.gpus and needs(gpus=count) <= room]
        found += [f"{enough[0]} GPUs"] if enough else []
    if "lora" in jobs.scale.methods and name != "lora":
        lora = _training_needs(jobs, jobs.scale.method("lora"), domain)
        if lora() <= room:
            found.append("LoRA")
        elif lora(**once) <= room:
            found.append("LoRA with gradient checkpointing and micro_batch 1")
    found += [f"the smaller base {base}" for base in _smaller_bases(jobs, name, domain, room)[:1]]
    return ", or ".join(found) or ELSEWHERE


def _timed_without_ewc(jobs: Jobs, domain: str, room: float) -> float:
    """Bytes that the rule `timings` needs of the scale's other methods."""
    points = {name: jobs.scale.method(name) for name in jobs.scale["methods"]}
    others = [name for name, point in points.items() if point["penalty"]["name"] != "ewc"]
    return max(
        jobs.timing_memory(group, domain) for group in jobs.timing_groups(others, domain, room)
    )


def _halves(size: int) -> list[int]:
    """The powers of two below `size`, the largest first."""
    return [2**power for power in range(size.bit_length(), -1, -1) if 2**power < size]


def _training_needs(jobs: Jobs, method: dict, domain: str) -> Callable[..., float]:
    return lambda **changes: jobs.training_memory(method, domain, **changes)


def _smaller_bases(jobs: Jobs, method: str, domain: str, room: float) -> list[str]:
    found = []
    for base in jobs.scale["bases"]:
        other = Jobs(jobs.work, jobs.work.shape(base), jobs.device)
        if other.shape.parameters < jobs.shape.parameters:
            point = jobs.scale.method(method)
            found += [base] * (other.training_memory(point, domain) <= room)
    return found


def refuse_if_too_large(bench, method: str | None = None) -> None:
    """Refuse, before its model is loaded, a run of `method` (None: Stage 0) that this device's free
    memory cannot hold.

    bench: a `Workbench`. Raises UserError with the predicted and the free memory and what would
    fit. It knows the records, so that it goes by the longest of them.
    """
    free, words = devices.free_memory()
    replayed = method and bench.scale.method(method)["replay"]
    jobs = _here(bench, free, words, [bench.domain, *(["replay"] if replayed else [])])
    if method is None:
        needed, what = jobs.stage0_memory(bench.domain), "Stage 0"
    else:
        point = bench.scale.method(method)
        needed, what = jobs.training_memory(point, bench.domain), method
    room = jobs.device.room
    if needed <= room:
        return
    rule = "train" if method else "stage0"
    hint = remedies(jobs, rule, bench.domain, method or "", room)
    needed *= free / room  # with what is lost between tensors
    raise UserError(
        f"{bench.base}, {bench.domain}, {what}: needs about {needed / GB:.1f} GB, "
        f"{free / GB:.1f} GB are free on {words}",
        f"What would fit: {hint}",
    )


def timing_groups(bench, methods: list[str]) -> list[list[str]]:
    """`methods`, Stage 0 and the Fisher in groups (`Jobs.timing_groups`) that the free memory of
    every device holds."""
    free, words = devices.free_memory()
    jobs = _here(bench, min(sharding.everyone(free)), words, [bench.domain, "replay"])
    return jobs.timing_groups(methods, bench.domain, jobs.device.room)


def _here(bench, free: float, words: str, data: list[str]) -> Jobs:
    """The jobs of a `Workbench` on this device, by the lengths of its records."""
    device = Device("here", words != devices.CPU, free, 0.0, {}, 1.0, 1.0, 0.0, 0.0)
    loads = {n: Load.of(bench.general if n == "replay" else bench.records) for n in data}
    shared = {**bench.scale.settings, "gpus": devices.world_size()}
    work = Workload(replace(bench.scale, settings=shared), None, loads)
    return Jobs(work, shape_of_checkpoint(bench.checkpoint), device)


def predicted_table1(scale: config.Scale, planned: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of a scale that nobody has run: a row a base, domain and method, without scores, its
    device hours and cost ratio predicted (on the first device of `planned`, by `plan`), its status
    `predicted`."""
    rows = planned[planned["device"] == planned["device"].iloc[0]]
    each = scale["seeds_per_job"]
    tasks = [said["task"] for said in scale["general"].values() if said.get("averaged", True)]
    table = []
    trained = rows[rows["rule"].isin(["train", "evaluate_base"])]
    for base, domain, method in trained[["base", "domain", "method"]].itertuples(index=False):
        row = {"scale": scale.name, "base": base, "domain": domain, "method": method}
        row |= {"general_tasks": " ".join(tasks), "status": PREDICTED, "seeds": 1}
        if method != "base":
            row["seeds"] = len(scale["seeds"])
            row["device_hours"] = _run_hours(rows, scale.method(method), row, each)
            full = {**row, "method": "full_ft"}
            hours = _run_hours(rows, scale.method("full_ft"), full, each)
            row["cost_ratio"] = row["device_hours"] / hours if hours else math.nan
        table.append(row)
    return pd.DataFrame(table, columns=TABLE1)


def _run_hours(rows: pd.DataFrame, method: dict, key: dict, seeds_per_job: int) -> float:
    """Predicted device hours of one run, Stage 0 and the Fisher charged in full; 0 if unplanned."""

    def hours(rule: str, **wanted: str) -> float:
        found = rows[(rows["rule"] == rule) & (rows["base"] == key["base"])]
        for column, value in wanted.items():
            found = found[found[column] == value]
        return float(found["gpu_hours_per_job"].sum())

    total = hours("train", domain=key["domain"], method=key["method"]) / seeds_per_job
    if config.needs_sets(method):
        total += hours("stage0", domain=key["domain"])
        total += hours("stage0", domain="replay") if method["replay"] else 0.0
    total += hours("fisher") if method["penalty"]["name"] == "ewc" else 0.0
    return total


def summary(planned: pd.DataFrame) -> str:
    """A line a device for the console: hours and cost of the default run, and what does not fit."""
    lines = []
    for (scale, device), rows in planned.groupby(["scale", "device"], sort=False):
        tuning = rows["rule"] == "tune"
        run, tuned = rows[~tuning], rows[tuning]
        unfit = run[~run["fits"]]
        line = (
            f"{scale} on {device}: {run['gpu_hours'].sum():.3g} device hours, "
            f"{run['usd'].sum():.3g} USD, {run['disk_gb'].sum():.3g} GB of disk; tuning "
            f"{tuned['gpu_hours'].sum():.3g} more. "
        )
        lines.append(line + (f"{len(unfit)} job kinds do not fit" if len(unfit) else "All fit"))
    return "\n".join(lines)
