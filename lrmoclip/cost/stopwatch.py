"""Device time from calls of all methods in turns within one process, so that whatever slows the
machine slows them alike."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import cycle

import torch

from lrmoclip.core import provenance, sharding
from lrmoclip.cost import flops
from lrmoclip.data.batches import collate
from lrmoclip.methods import REFERENCE, Method, Need
from lrmoclip.models.shapes import shape_of_checkpoint
from lrmoclip.train import memory
from lrmoclip.train.fisher import fisher_diagonal
from lrmoclip.train.memory import Rows
from lrmoclip.train.stage0 import collect_batch
from lrmoclip.train.workbench import Workbench

FISHER_CHUNK = 8  # records of one timed call
ONCE = (Need.STORE, Need.FISHER)  # what is made once for all steps, and timed beside them


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


def timings(bench: Workbench, methods: list[str]) -> dict:
    """Device-seconds of one step of each method, of a whole Stage 0 and a whole Fisher where one of
    them needs it, measured in turns of as many as the memory holds; and what the cost model needs
    to predict them.

    Groups that begin with the same method are brought to one level by its times in them. As one of
    several processes of a torchrun, step one shard of each method; Stage 0 and the Fisher then run
    on every device, as they do on one.
    """
    scale, data, general = bench.scale, bench.records, bench.general
    seconds: dict[str, float] = {}
    for names in groups(bench, methods):
        found = time_in_turns({n: _contestant(bench, n) for n in names}, scale.timing.rounds)
        level = seconds.get(names[0], found[names[0]]) / found[names[0]]
        seconds = {name: level * s for name, s in found.items()} | seconds
    stage0, fisher = (seconds.pop(name, None) for name in ONCE)
    shape, share = shape_of_checkpoint(bench.checkpoint), flops.supervised_share(data)
    used = scale.ewc.fisher_records
    return {
        "scale": scale.name,
        "base": bench.base,
        "domain": bench.domain,
        "device": provenance.hardware(),
        "rounds": scale.timing.rounds,
        "shape": asdict(shape),
        "supervised_share": share,
        "head_share": flops.head_share(shape, share),
        "step_s": {method: s * sharding.place()[1] for method, s in seconds.items()},
        "stage0_s": stage0 and stage0 * -(-len(data) // scale.stage0.batch_size),
        "stage0_tokens": data.tokens,
        "fisher_s": fisher and fisher * used / FISHER_CHUNK,
        "fisher_tokens": sum(general.lengths[:used]),
        "fisher_share": flops.supervised_share(general),
        "provenance": provenance.stamp(),
    }


def needed_once(methods: Iterable[Method]) -> list[Need]:
    """Those of `ONCE` that one of the methods needs."""
    needs = frozenset().union(*(method.needs for method in methods))
    return [need for need in ONCE if need in needs]


def groups(bench: Workbench, methods: list[str]) -> list[list[str]]:
    """`methods`, and `store` and `fisher` where one of them needs it, in groups that the free
    memory of every device holds. Each begins with the reference (without it, the first method), but
    for what has no room beside it and stands alone."""
    free, kind, _ = memory.free_bytes()
    room = memory.ROOM[kind] * min(sharding.everyone(free))
    first = REFERENCE if REFERENCE in methods else methods[0]
    once = needed_once(bench.point(name) for name in methods)
    found = [[first]]
    for name in [*(name for name in methods if name != first), *once]:
        tries = [*found[-1], name], [first, name]
        fitting = [group for group in tries if group_bytes(bench, group) <= room]
        if fitting[:1] == [tries[0]]:
            found[-1] = tries[0]
        else:
            found.append(fitting[0] if fitting else [name])
    return found


def group_bytes(bench: Workbench, group: list[str]) -> float:
    """Peak bytes on each device where the runs of a group stand beside one another."""
    shape, scale, gpus = shape_of_checkpoint(bench.checkpoint), bench.scale, sharding.asked()
    methods = [bench.point(name) for name in group if name not in ONCE]
    kept = [memory.kept_bytes(shape, method) / gpus for method in methods]
    base = 4 * shape.parameters if gpus > 1 and set(group) & set(ONCE) else 0.0
    peaks = [0.0]
    for method, own in zip(methods, kept, strict=True):
        passes, size = memory.passes_of(bench, method, gpus), memory.largest_set(scale, method)
        peaks.append(base + memory.training_bytes(shape, method, passes, scale, size, gpus) - own)
    if Need.STORE in group:
        peaks.append(memory.needed(bench, None))
    if Need.FISHER in group:
        rows, full = Rows.of(bench.general, 1), Method(label="full fine-tuning")
        peaks.append(memory.fisher_bytes(shape, full, rows, scale))
    return sum(kept) + max(peaks)


def _contestant(bench: Workbench, name: str) -> Callable[[], object]:
    """A call that takes one step of a method, one batch of Stage 0, or FISHER_CHUNK records of the
    Fisher."""
    scale, general = bench.scale, bench.general
    if name == Need.STORE:
        starts = cycle(range(0, len(bench.records), scale.stage0.batch_size))
        return lambda: collect_batch(
            bench.model, bench.records, next(starts), scale.stage0, bench.precision
        )
    if name == Need.FISHER:
        dice = torch.Generator().manual_seed(0)
        records = cycle(range(min(scale.ewc.fisher_records, len(general))))
        return lambda: fisher_diagonal(
            bench.model,
            [collate(general, [next(records)]).to(bench.model.device) for _ in range(FISHER_CHUNK)],
            dice,
            bench.precision,
        )
    # A step's time does not depend on the rate, so that timing needs no tuned one.
    return bench.run(bench.point(name), 1e-4, seed=0, telemetry=False).step
