"""Stage 0: one forward pass of the base model over a data file, which keeps the candidate set of
each supervised position. Only supervised positions pass the vocabulary projection."""

import torch
from tqdm import tqdm

from lrmoclip.batches import Encoded, collate
from lrmoclip.candidates import Candidates, select_candidates
from lrmoclip.heads import supervised_logits

LOW_GOLD_IN_SET = 0.9


def collect(model, data: Encoded, settings: dict) -> tuple[Candidates, torch.Tensor]:
    """Sets of all supervised positions in the order of `data`, and where each record's begin.

    settings: coverage, k_min, k_max, batch_size (records a forward pass).
    """
    starts = range(0, len(data), settings["batch_size"])
    parts = [
        collect_batch(model, data, start, settings)
        for start in tqdm(starts, desc="stage 0", mininterval=5)
    ]
    records = torch.cat([torch.zeros(1, dtype=torch.int64), data.supervised.cumsum(0)])
    return Candidates.cat(parts), records


@torch.no_grad()
def collect_batch(model, data: Encoded, start: int, settings: dict) -> Candidates:
    """Sets of the positions of one forward pass, the records from `start` on."""
    stop = min(start + settings["batch_size"], len(data))
    batch = collate(data, list(range(start, stop))).to(model.device)
    logits = supervised_logits(model, batch.input_ids, batch.supervised)  # (n, V)
    limits = {key: settings[key] for key in ("coverage", "k_min", "k_max")}
    return select_candidates(logits, batch.gold, **limits).to("cpu")


def statistics(sets: Candidates, data: Encoded) -> dict:
    """Gold-in-set rate (end-of-sequence positions apart), set sizes, outside mass."""
    gold_in_set, sizes = ~sets.gold_forced, sets.sizes
    is_eos = data.gold == data.eos_id
    return {
        "positions": len(sets),
        "gold_in_set": _mean(gold_in_set[~is_eos]),
        "gold_in_set_eos": _mean(gold_in_set[is_eos]),
        "set_size_mean": _mean(sizes),
        "set_size_max": int(sizes.max()),
        "outside_mass": _mean(sets.log_outside.exp()),
    }


def is_cold(gold_in_set: float | None) -> str | None:
    """A warning where the literal loss can't teach much of the data, else None."""
    if gold_in_set is None or gold_in_set >= LOW_GOLD_IN_SET:
        return None
    return (
        f"the base's own sets hold only {100 * gold_in_set:.1f} % of the gold tokens (low: below "
        f"{100 * LOW_GOLD_IN_SET:.0f} %). Where gold had to be forced in, the restricted loss can "
        "reach zero while tokens outside the set keep their probability"
    )


def _mean(values: torch.Tensor) -> float:
    return float(values.double().mean()) if values.numel() else float("nan")
