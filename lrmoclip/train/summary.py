"""What a run's log says in a few numbers: the content of `run.json`, and its warnings."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from lrmoclip.train import sets
from lrmoclip.train.probes import loss_spikes, rises
from lrmoclip.train.run import Run
from lrmoclip.train.stage0 import is_cold


def run_summary(log: list[dict], run: Run) -> dict:
    """Totals and medians over the rows of `run.train`; statistics of the base's sets, if any, with
    the size that sets had in the mean of all steps. train_s: of steps and of refreshes."""
    steps = [row for row in log if "loss" in row]
    probes = [row for row in log if "probe_s" in row]
    outside = [row["outside_mass"] for row in probes if "outside_mass" in row]
    source = run.domain
    probe_records = min(run.settings.probe_records, len(source.data))
    summary = {
        "steps": len(steps),
        "tokens": sum(row["tokens"] for row in steps),
        "supervised": sum(row["supervised"] for row in steps),
        "loss": _mean(steps[-10:], "loss"),
        "grad_norm": _median(steps, "grad_norm"),
        "loss_spikes": loss_spikes([row["probe_cross_entropy"] for row in probes]),
        "probe_cross_entropy": probes[-1]["probe_cross_entropy"],
        "clip_rate": _mean(steps, "clip_rate"),
        "median_angle": _median(steps, "median_angle"),
        "outside_mass_start": outside[0] if outside else None,
        "outside_mass": outside[-1] if outside else None,
        "step_s": _median(steps, "step_s"),
        "train_s": sum(row["step_s"] + row.get("refresh_s", 0.0) for row in steps),
        "refreshes": len(_values(steps, "refresh_s")),
        "refreshed_tokens": sum(_values(steps, "refreshed_tokens")),
        "probe_s": sum(row["probe_s"] for row in probes),
        "probe_tokens": len(probes) * sum(source.data.lengths[:probe_records]),
    }
    kept = dict(sets.statistics(replace(source, fresh=None), run.loss))
    if summary["refreshes"]:
        kept["set_size_mean"] = statistics.fmean(_sizes(steps, kept["set_size_mean"]))
    names = ("gold_in_set", "gold_in_set_eos", "set_size_mean", "set_size_max")
    summary |= {name: kept.get(name) for name in names}
    summary["warnings"] = [*filter(None, (is_cold(kept.get("gold_in_set")), rises(outside)))]
    return summary


def _sizes(steps: list[dict], size: float) -> Iterator[float]:
    """The mean size of the sets at each step, from what it was at first and at each refresh."""
    for row in steps:
        size = row.get("set_size_mean", size)
        yield size


def _values(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _mean(rows: list[dict], name: str) -> float | None:
    return statistics.fmean(_values(rows, name)) if _values(rows, name) else None


def _median(rows: list[dict], name: str) -> float | None:
    return statistics.median(_values(rows, name)) if _values(rows, name) else None
