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

from lrmoclip import config, provenance
from lrmoclip.batches import Encoded, collate
from lrmoclip.objectives import fisher_diagonal
from lrmoclip.stage0 import collect_batch
from lrmoclip.workbench import Workbench

FISHER_CHUNK = 8  # records of one timed call
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


def timings(bench: Workbench, methods: list[str], rounds: int) -> dict:
    """Seconds of one step of each method, of a whole Stage 0 and a whole Fisher, measured in turns;
    and what the cost model needs to predict them."""
    scale, data = bench.scale, bench.records
    # A step's time does not depend on the rate, so that timing needs no tuned one.
    runs = {m: bench.run(m, 1e-4, seed=0, telemetry=False) for m in methods}
    contestants: dict[str, Callable] = {m: run.step for m, run in runs.items()}
    size = scale["stage0"]["batch_size"]
    starts = cycle(range(0, len(data), size))
    contestants["stage0"] = lambda: collect_batch(
        bench.model, data, next(starts), scale["stage0"], bench.precision
    )
    general, dice = bench.general, torch.Generator().manual_seed(0)
    records = cycle(range(min(scale["ewc"]["fisher_records"], len(general))))
    contestants["fisher"] = lambda: fisher_diagonal(
        bench.model,
        [collate(general, [next(records)]).to(bench.model.device) for _ in range(FISHER_CHUNK)],
        dice,
        bench.precision,
    )
    seconds = time_in_turns(contestants, rounds)
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
        "step_s": {m: seconds[m] for m in methods},
        "stage0_s": seconds["stage0"] * -(-len(data) // size),
        "stage0_tokens": data.tokens,
        "fisher_s": seconds["fisher"] * used / FISHER_CHUNK,
        "fisher_tokens": sum(len(ids) - 1 for ids in general.ids[:used]),
        "fisher_share": supervised_share(general),
        "provenance": provenance.stamp(),
    }


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
    stages = {
        "stage1": (stage1_s, run["train_s"], run["tokens"], train_flops),
        "probe": (run["probe_s"], run["probe_s"], run["probe_tokens"],
                  run["probe_tokens"] * forward),
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
