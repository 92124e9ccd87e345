"""`plan.csv`, a row a rule, kind of job and device; and table 1 of a scale that nobody has run."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from lrmoclip.config import Scale
from lrmoclip.config.device import Device
from lrmoclip.cost.plan.jobs import Jobs, room
from lrmoclip.cost.plan.workload import Workload
from lrmoclip.methods import REFERENCE, Need
from lrmoclip.report.tables import PREDICTED, TABLE1
from lrmoclip.train.memory import GB
from lrmoclip.train.workbench import REPLAY

KEY = ["rule", "base", "domain", "method"]
PLAN = [
    *("scale", *KEY, "jobs", "device", "gpus", "gpu_hours_per_job", "gpu_hours", "wall_hours"),
    *("peak_memory_gb", "disk_gb", "usd", "fits", "what_would_fit"),
]
# The rule that makes a need, and of what: a set, or (None) the domain.
MADE = {
    Need.FISHER: ("fisher", ""),
    Need.STORE: ("stage0", None),
    Need.GENERAL_STORE: ("stage0", REPLAY),
}
# The settings that say how many records or items a rule has in memory at a time.
BATCHES = {
    "stage0": ["stage0.batch_size"],
    "train": ["stage1.micro_batch"],
    "timings": ["stage1.micro_batch"],
    "tune": ["stage1.micro_batch", "evaluation.batch_size"],
    "evaluate": ["evaluation.batch_size"],
    "evaluate_base": ["evaluation.batch_size"],
}
ELSEWHERE = "a device with more memory"


def plan(work: Workload, devices: Mapping[str, Device]) -> pd.DataFrame:
    """The rows of plan.csv: every rule of the scale on each of the devices.

    base, domain, method: the rule's wildcards. gpus: that one job uses, 0 on a CPU, whose hours
    then count as gpu_hours. wall_hours: of all jobs one after the other. disk_gb: what all jobs
    leave. peak_memory_gb: of each GPU, or of the process. fits: within what tensors may fill of the
    device; where it does not, what_would_fit says what would. The rule `tune` is not part of a
    default run.
    """
    scale = work.scale
    rows = [
        {"scale": scale.name, "base": base, "device": name} | _row(jobs, *kind)
        for name, device in devices.items()
        for base in scale.bases_to_run
        for jobs in [Jobs(work, scale, base, device)]
        for kind in _kinds(scale)
    ]
    table = pd.DataFrame(rows, columns=PLAN)
    numbers = table.select_dtypes("float").columns
    table[numbers] = table[numbers].map(lambda value: float(f"{value:.4g}"))
    return table


def _kinds(scale: Scale) -> Iterator[tuple[str, str, str]]:
    """(rule, domain, method) of all jobs of one base."""
    needs = frozenset().union(*(scale.method(name).needs for name in scale.methods))
    domains = scale.domains_to_run
    yield "base", "", ""
    for rule, data in (made for need, made in MADE.items() if need in needs):
        yield from ((rule, name, "") for name in (domains if data is None else [data]))
    for domain in domains:
        yield "evaluate_base", domain, ""
        yield from (
            (rule, domain, name) for name in scale.methods for rule in ("train", "evaluate")
        )
        yield "timings", domain, ""
        yield from (("tune", domain, name) for name in scale.methods)


def _row(jobs: Jobs, rule: str, domain: str, method: str) -> dict:
    one, device, scale = jobs.job(rule, domain, method), jobs.device, jobs.scale
    seeds, runs = len(scale.seeds), scale.seeds_per_job
    if rule not in ("train", "evaluate"):
        seeds = runs = 1
    count = math.ceil(seeds / runs)
    gpus = jobs.gpus if rule in ("train", "tune", "timings") else 1
    hours, fits = runs * one.seconds / 3600, one.memory <= room(device)
    return {
        **{"rule": rule, "domain": domain, "method": method, "jobs": count},
        "gpus": gpus if device.kind == "cuda" else 0,
        "gpu_hours_per_job": hours * gpus,
        "gpu_hours": hours * gpus * count,
        "wall_hours": hours * count,
        "peak_memory_gb": one.memory / GB + device.reserved_gb,
        "disk_gb": count * runs * one.disk / GB,
        "usd": hours * gpus * count * device.usd_per_hour,
        "fits": fits,
        "what_would_fit": "" if fits else what_would_fit(jobs, rule, domain, method),
    }


def what_would_fit(jobs: Jobs, rule: str, domain: str, method: str) -> str:
    """The mildest change by which a job fits on its device: half as many records at a time, or half
    of that; activations computed again; another device."""
    changes: list[tuple[str, int]] = []
    for name in BATCHES.get(rule, []):
        part, key = name.split(".")
        settings = getattr(jobs.scale, part)
        size = getattr(settings, key) or settings.batch_size
        changes += [(name, size >> halvings) for halvings in range(1, size.bit_length())]
    if "stage1.micro_batch" in BATCHES.get(rule, []):
        changes.append(("stage1.gradient_checkpointing", True))
    for name, value in changes:
        part, key = name.split(".")
        changed = getattr(jobs.scale, part).model_copy(update={key: value})
        scale = jobs.scale.model_copy(update={part: changed})
        if replace(jobs, scale=scale).job(rule, domain, method).memory <= room(jobs.device):
            return f"{name}: {value}".lower()
    return ELSEWHERE


def predicted_table1(scale: Scale, planned: pd.DataFrame) -> pd.DataFrame:
    """Table 1 of a scale that nobody has run: a row a base, domain and method, without scores, its
    device hours and cost ratio predicted (on the first device of `planned`, by `plan`), its status
    `predicted`."""
    rows = planned[planned["device"] == planned["device"].iloc[0]]
    hours = rows.set_index(KEY)["gpu_hours_per_job"].to_dict()

    def of_run(base: str, domain: str, name: str) -> float:
        """Stage 0 and the Fisher charged in full."""
        made = [MADE[need] for need in MADE if need in scale.method(name).needs]
        sets = [(rule, domain if data is None else data) for rule, data in made]
        once = sum(hours[rule, base, name, ""] for rule, name in sets)
        return once + hours["train", base, domain, name] / scale.seeds_per_job

    tasks = " ".join(said.task for said in scale.general.values() if said.averaged)
    table = []
    for rule, base, domain, method in hours:
        row = {"scale": scale.name, "base": base, "domain": domain, "method": method or "base"}
        row |= {"seeds": 1, "general_tasks": tasks, "status": PREDICTED}
        if rule == "train":
            row |= {"seeds": len(scale.seeds), "device_hours": of_run(base, domain, method)}
            if REFERENCE in scale.methods:
                row["cost_ratio"] = row["device_hours"] / of_run(base, domain, REFERENCE)
        if rule in ("train", "evaluate_base"):
            table.append(row)
    return pd.DataFrame(table, columns=TABLE1)
