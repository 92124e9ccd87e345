"""How a benchmark is taken: contestants in turns in one process, medians over rounds, memory by the
allocator, and the time that the bytes alone would take."""

import operator
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lrmoclip.cost.stopwatch import time_in_turns

_HOLDS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


def row(
    figure: str, case: str, measure: str, value: float | None, target: str | None = None, **more
) -> dict:
    """One row of the table. value: None where nothing could be measured; target: a sign and a
    number, such as `<= 0.7`; more: other columns."""
    met = None
    if target and value is not None:
        sign, number = target.split()
        met = bool(_HOLDS[sign](value, float(number)))
    named = {"figure": figure, "case": case, "measure": measure, "value": value}
    return named | {"target": target, "met": met} | more


def against(
    figure: str, case: str, seconds: dict[str, float], contestant: str, baseline: str,
    target: str | None = None, speedup: bool = False, **more,
) -> dict:  # fmt: skip
    """A row that compares two of `time_in_turns`' medians: a ratio of times, or of speeds."""
    mine, theirs = seconds[contestant], seconds[baseline]
    measure, value = ("speed-up", theirs / mine) if speedup else ("time ratio", mine / theirs)
    times = {"seconds": mine, "baseline_seconds": theirs}
    names = {"contestant": contestant, "baseline": baseline}
    return row(figure, case, measure, value, target, **names, **times, **more)


def extra_mb(call: Callable[[], list[Tensor]], device: torch.device) -> float:
    """The allocator's peak during `call` in MB, beyond what was held before and the tensors that
    it returns (gradients)."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        returned = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            returned = call()
        # Allocations and, as negative numbers, what was given back, in the order of time.
        events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
    return (peak - sum(map(_stored_bytes, returned))) / 1e6


def _stored_bytes(tensor: Tensor) -> int:
    if tensor.is_sparse:
        tensor = tensor._values()
    return tensor.nbytes


def bandwidth(device: torch.device) -> float:
    """Bytes a second of a copy of 256 MB, read and written: the floor that traffic sets."""
    source = torch.empty(2**26, device=device)
    target = torch.zeros_like(source)
    source.zero_()
    seconds = time_in_turns({"copy": lambda: target.copy_(source)}, rounds=7)["copy"]
    return 2 * source.nbytes / seconds
