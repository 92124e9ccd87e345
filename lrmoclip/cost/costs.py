"""Cost accounting. FLOPs come from the cost model below; device time from calls of all methods in
turns within one process (`time_in_turns`), so that whatever slows the machine slows them alike.

Per token of training text, with supervised share s, body B parameters, head H = V d, mean set size
K, E epochs: full 6 (B + s H), Stage 1 6 B + 6 s d K, Stage 0 2 (B + s H) / E. Left out: attention's
quadratic part, norms, the optimizer, Stage 0's softmax and sort. LoRA's frozen weights need no
gradient of their own: 4 (B + s H), the adapters left out."""

import statistics
import time
from collections.abc import Callable
from itertools import cycle

import torch

from lrmoclip.config import scale as config
from lrmoclip.core import provenance
from lrmoclip.data.batches import Encoded, collate
from lrmoclip.methods.objectives import fisher_diagonal
from lrmoclip.train import sharding
from lrmoclip.train.stage0 import collect_batch
from lrmoclip.train.workbench import Workbench

TIMINGS = "timings"  # the kind of artefact
FISHER_CHUNK = 8  # records of one timed call
ONCE = ("stage0", "fisher")  # what is charged once for all steps
SAVINGS = [  # columns of savings.csv
    *("scale", "base", "domain", "method", "device", "supervised_share", "head_share"),
    *("set_size_mean", "step_ratio_predicted", "step_ratio", "cost_ratio", "cost_ratio_amortised"),
]


def model_shape(model) -> dict[str, int]:
    """Parameters of the body and of the head (V x d), once each, and d."""
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    everything = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    outside_body = head.numel() if head is embedding else head.numel() + embedding.numel()
    return {"body": everything - outside_body, "head": head.numel(), "d": head.shape[1]}


def supervised_share(data: Encoded) -> float:
    """Supervised positions over tokens fed."""
    return int(data.supervised.sum()) / data.tokens


def head_share(shape: dict[str, int], share: float) -> float:
    """Share of a full step's FLOPs that the vocabulary projection takes."""
    return share * shape["head"] / (shape["body"] + share * shape["head"])


def flops_per_token(method: dict, shape: dict[str, int], share: float, mean_k: float) -> float:
    """Training FLOPs a token of a method, by the module's head."""
    passes = 4 if method["adapter"]["name"] == "lora" else 6
    head = share * (shape["d"] * mean_k if config.needs_sets(method) else shape["head"])
    return passes * (shape["body"] + head)


def forward_flops(shape: dict[str, int], share: float) -> float:
    """FLOPs a token of a forward pass that projects the supervised share."""
    return 2 * (shape["body"] + share * shape["head"])


def time_in_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant's call, all called in turn in every round.

    Two rounds of warm-up do not count. The order turns by one from round to round, so that no
    contestant always follows the same one.
    """
    names = list(contestants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 2):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            contestants[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def timings(bench: Workbench, groups: list[list[str]], rounds: int) -> dict:
    """Device-seconds of one step of each method, of a whole Stage 0 and a whole Fisher, measured in
    turns; and what the cost model needs to predict them.

    groups: what stands in memory together, of the scale's methods, `stage0` and `fisher`, whose
    seconds are None if they are in no group. Groups that begin with the same one are brought to one
    level by its times in them. As one of several processes of a torchrun, step one shard of each
    method; Stage 0 and the Fisher then run on every device, as they do on one.
    """
    scale, data, general = bench.scale, bench.records, bench.general
    seconds: dict[str, float] = {}
    for names in groups:
        found = time_in_turns({name: _contestant(bench, name) for name in names}, rounds)
        level = seconds.get(names[0], found[names[0]]) / found[names[0]]
        seconds = {name: level * s for name, s in found.items()} | seconds
    stage0, fisher = (seconds.pop(name, None) for name in ONCE)
    shape, share = model_shape(bench.model), supervised_share(data)
    used = scale["ewc"]["fisher_records"]
    return {
        "scale": scale.name,
        "base": bench.base,
        "domain": bench.domain,
        "device": provenance.hardware(),
        "rounds": rounds,
        "shape": shape,
        "supervised_share": share,
        "head_share": head_share(shape, share),
        "step_s": {method: s * sharding.place()[1] for method, s in seconds.items()},
        "stage0_s": stage0 and stage0 * -(-len(data) // scale["stage0"]["batch_size"]),
        "stage0_tokens": data.tokens,
        "fisher_s": fisher and fisher * used / FISHER_CHUNK,
        "fisher_tokens": sum(len(ids) - 1 for ids in general.ids[:used]),
        "fisher_share": supervised_share(general),
        "provenance": provenance.stamp(),
    }


def needed_once(methods: list[dict]) -> list[str]:
    """Those of `ONCE` that one of the methods needs."""
    needed = {
        "stage0": any(config.needs_sets(method) for method in methods),
        "fisher": any(method["penalty"]["name"] == "ewc" for method in methods),
    }
    return [name for name in ONCE if needed[name]]


def _contestant(bench: Workbench, name: str) -> Callable[[], object]:
    """A call that takes one step of a method, one batch of Stage 0, or FISHER_CHUNK records of the
    Fisher."""
    scale, general = bench.scale, bench.general
    if name == "stage0":
        size = scale["stage0"]["batch_size"]
        starts = cycle(range(0, len(bench.records), size))
        return lambda: collect_batch(
            bench.model, bench.records, next(starts), scale["stage0"], bench.precision
        )
    if name == "fisher":
        dice = torch.Generator().manual_seed(0)
        records = cycle(range(min(scale["ewc"]["fisher_records"], len(general))))
        return lambda: fisher_diagonal(
            bench.model,
            [collate(general, [next(records)]).to(bench.model.device) for _ in range(FISHER_CHUNK)],
            dice,
            bench.precision,
        )
    # A step's time does not depend on the rate, so that timing needs no tuned one.
    return bench.run(name, 1e-4, seed=0, telemetry=False).step


def cost_rows(run: dict, method: dict, timings: dict, evaluation_s: float) -> list[dict]:
    """Rows of costs.csv for one run (its run.json), one a stage: stage0, fisher, stage1, probe,
    evaluation.

    Stage 0 and the Fisher are charged in full to each run that needs them. `usd` is empty on a
    device without a price.
    """
    shape, share = timings["shape"], timings["supervised_share"]
    mean_k = run.get("set_size_mean") or 0.0
    stage1_s = run["steps"] * timings["step_s"][run["method"]]
    train_flops = run["tokens"] * flops_per_token(method, shape, share, mean_k)
    forward = forward_flops(shape, share)
    # stage -> seconds on the device, seconds by the clock of the run itself, tokens, FLOPs
    probe_s, probe_tokens = run["probe_s"], run["probe_tokens"]
    stages = {
        "stage1": (stage1_s, run["train_s"], run["tokens"], train_flops),
        "probe": (probe_s * run.get("devices", 1), probe_s, probe_tokens, probe_tokens * forward),
        "evaluation": (evaluation_s, evaluation_s, None, None),
    }  # fmt: skip
    if config.needs_sets(method):
        seconds, tokens = timings["stage0_s"], timings["stage0_tokens"]
        stages["stage0"] = (seconds, seconds, tokens, tokens * forward)
    if method["penalty"]["name"] == "ewc":
        seconds, tokens = timings["fisher_s"], timings["fisher_tokens"]
        full = 3 * forward_flops(shape, timings["fisher_share"])
        stages["fisher"] = (seconds, seconds, tokens, tokens * full)
    order = ("stage0", "fisher", "stage1", "probe", "evaluation")
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
        for stage in order
        if stage in stages
    ]


def saving_row(run: dict, method: dict, full: dict, timings: dict, seeds: int) -> dict:
    """What a method costs against `full_ft`, and the share of the head that bounds the saving.

    step_ratio_predicted is by FLOPs, step_ratio measured (nothing but steps); cost_ratio charges
    Stage 0 and the Fisher in full, cost_ratio_amortised shares them among `seeds` runs.
    """
    shape, share = timings["shape"], timings["supervised_share"]
    predicted = flops_per_token(method, shape, share, run.get("set_size_mean") or 0.0)
    steps_s = run["steps"] * timings["step_s"][run["method"]]
    full_s = run["steps"] * timings["step_s"]["full_ft"]
    once_s = timings["stage0_s"] if config.needs_sets(method) else 0.0
    once_s += timings["fisher_s"] if method["penalty"]["name"] == "ewc" else 0.0
    return {
        **{key: run[key] for key in ("scale", "base", "domain", "method")},
        "device": timings["device"],
        "supervised_share": share,
        "head_share": head_share(shape, share),
        "set_size_mean": run.get("set_size_mean"),
        "step_ratio_predicted": predicted / flops_per_token(full, shape, share, 0.0),
        "step_ratio": steps_s / full_s,
        "cost_ratio": (steps_s + once_s) / full_s,
        "cost_ratio_amortised": (steps_s + once_s / seeds) / full_s,
    }
