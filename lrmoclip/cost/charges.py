"""What each run is charged with: rows of costs.csv and savings.csv, from a run's record and the
timings of its base and domain. Stage 0 and the Fisher are charged in full to each run that needs
them; what a run collects again (a refresh) is part of its Stage 1."""

from pathlib import Path

from lrmoclip.config import Scale
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import is_unfinished
from lrmoclip.cost import flops
from lrmoclip.methods import REFERENCE, Method, Need
from lrmoclip.models.shapes import Shape

SAVINGS = [
    *("scale", "base", "domain", "method", "device", "supervised_share", "head_share"),
    *("set_size_mean", "step_ratio_predicted", "step_ratio", "cost_ratio", "cost_ratio_amortised"),
]
KIND, TIMINGS = "timings", "timings*.json"  # of artefact, and its files
STAGES = ("stage0", "fisher", "stage1", "probe", "evaluation")
ONCE = {Need.STORE: "stage0", Need.FISHER: "fisher"}  # the stage that makes a need


def timings_below(results: Path, scale: Scale) -> dict[tuple[str, str], dict]:
    """By base and domain, the timings below a folder of results. UserError for another scale's."""
    found: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(Path(results).rglob(TIMINGS)):
        if is_unfinished(path):
            continue
        timings = files.read_sealed(path, KIND)
        if timings["scale"] != scale.name:
            raise UserError(f"{path}: of the scale {timings['scale']}, not {scale.name}", "Move it")
        found.setdefault((timings["base"], timings["domain"]), []).append(timings)
    return {key: together(several) for key, several in found.items()}


def together(several: list[dict]) -> dict:
    """Timings of one base and domain that were taken one after the other, each of other methods and
    of full_ft, as one: brought to the first one's level by full_ft's step."""
    first, *others = several
    for other in others:
        level = 1.0
        if {REFERENCE} <= first["step_s"].keys() & other["step_s"].keys():
            level = first["step_s"][REFERENCE] / other["step_s"][REFERENCE]
        steps = {name: level * s for name, s in other["step_s"].items()} | first["step_s"]
        once = {
            key: level * other[key] if first[key] is None and other[key] else first[key]
            for key in (f"{stage}_s" for stage in ONCE.values())
        }
        first = {**first, **once, "step_s": steps}
    return first


def cost_rows(run: dict, method: Method, timings: dict, evaluation_s: float) -> list[dict]:
    """Rows of costs.csv for one run (its run.json), one a stage. `usd` is empty on a device without
    a price."""
    shape, share = Shape(**timings["shape"]), timings["supervised_share"]
    set_size = run.get("set_size_mean") or 0.0
    stage1_s = run["steps"] * timings["step_s"][run["method"]] + _refresh_s(run, timings)
    refreshed = (run.get("refreshed_tokens") or 0) / run["tokens"]
    train_flops = run["tokens"] * flops.training(method, shape, share, set_size, refreshed)
    forward = flops.forward(shape, share)
    probe_s, probe_tokens = run["probe_s"], run["probe_tokens"]
    # stage -> seconds on the device, seconds by the clock of the run itself, tokens, FLOPs
    stages = {
        "stage1": (stage1_s, run["train_s"], run["tokens"], train_flops),
        "probe": (probe_s * run.get("devices", 1), probe_s, probe_tokens, probe_tokens * forward),
        "evaluation": (evaluation_s, evaluation_s, None, None),
    }
    passes = {"stage0": forward, "fisher": 3 * flops.forward(shape, timings["fisher_share"])}
    for need, stage in ONCE.items():
        if need in method.needs:
            seconds, tokens = timings[f"{stage}_s"], timings[f"{stage}_tokens"]
            stages[stage] = (seconds, seconds, tokens, tokens * passes[stage])
    return [
        {
            **{key: run[key] for key in ("scale", "base", "domain", "method", "seed")},
            "stage": stage,
            "device": timings["device"],
            "device_hours": stages[stage][0] / 3600,
            "wall_s": stages[stage][1],
            "tokens": stages[stage][2],
            "flops_model": stages[stage][3],
            "peak_memory_mb": run["peak_memory_mb"] if stage == "stage1" else None,
            "usd": None,
        }
        for stage in STAGES
        if stage in stages
    ]


def saving_row(run: dict, method: Method, full: Method, timings: dict, seeds: int) -> dict:
    """What a method costs against `full_ft`, and the share of the head that bounds the saving.

    step_ratio_predicted is by FLOPs, step_ratio measured (nothing but steps); cost_ratio charges
    refreshes, and Stage 0 and the Fisher in full; cost_ratio_amortised shares these two among
    `seeds` runs.
    """
    shape, share = Shape(**timings["shape"]), timings["supervised_share"]
    predicted = flops.training(method, shape, share, run.get("set_size_mean") or 0.0)
    steps_s = run["steps"] * timings["step_s"][run["method"]]
    full_s = run["steps"] * timings["step_s"][REFERENCE]
    refresh_s = _refresh_s(run, timings)
    once_s = sum(timings[f"{stage}_s"] for need, stage in ONCE.items() if need in method.needs)
    return {
        **{key: run[key] for key in ("scale", "base", "domain", "method")},
        "device": timings["device"],
        "supervised_share": share,
        "head_share": flops.head_share(shape, share),
        "set_size_mean": run.get("set_size_mean"),
        "step_ratio_predicted": predicted / flops.training(full, shape, share, 0.0),
        "step_ratio": steps_s / full_s,
        "cost_ratio": (steps_s + refresh_s + once_s) / full_s,
        "cost_ratio_amortised": (steps_s + refresh_s + once_s / seeds) / full_s,
    }


def _refresh_s(run: dict, timings: dict) -> float:
    """Device-seconds in which a run collected sets again: Stage 0's, by tokens."""
    if not (tokens := run.get("refreshed_tokens")):
        return 0.0
    return tokens / timings["stage0_tokens"] * timings["stage0_s"]
