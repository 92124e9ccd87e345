"""Stage 0: one forward pass of the base model over a data file, which keeps the candidate set of
each supervised position. Only supervised positions pass the vocabulary projection, some at a time,
and what is found streams into a store."""

import torch
from tqdm import tqdm

from lrmoclip.config.parts import Stage0
from lrmoclip.core.candidates import Candidates, select_candidates
from lrmoclip.core.heads import head_of, supervised_hidden
from lrmoclip.core.precision import autocast
from lrmoclip.core.store import StoreWriter
from lrmoclip.data.batches import Encoded, collate

LOGITS = 2**24  # held at a time, 64 MiB in float32, however many positions a batch supervises
LOW_GOLD_IN_SET = 0.9


def collect(
    model, data: Encoded, settings: Stage0, writer: StoreWriter, precision: str = "float32"
) -> None:
    """Add the sets of all records of `data` that the writer does not hold yet.

    precision: of the body; the projection is in the weight's dtype, as the loss has it.
    """
    size, supervised = settings.batch_size, data.supervised
    with tqdm(total=len(data), initial=writer.records, desc="stage 0", mininterval=5) as bar:
        for start in range(writer.records, len(data), size):
            sets, gold = collect_batch(model, data, start, settings, precision)
            writer.add(sets, gold, supervised[start : start + size])
            bar.update(writer.records - bar.n)


@torch.no_grad()
def collect_batch(
    model, data: Encoded, start: int, settings: Stage0, precision: str = "float32"
) -> tuple[Candidates, torch.Tensor]:
    """Sets and targets (N,) of the positions of one forward pass, the records from `start` on."""
    stop = min(start + settings.batch_size, len(data))
    batch = collate(data, list(range(start, stop))).to(model.device)
    with autocast(precision, model.device):
        hidden = supervised_hidden(model, batch.input_ids, batch.supervised)  # (N, d)
    head, limits = head_of(model), settings.model_dump(include={"coverage", "k_min", "k_max"})
    rows = max(1, LOGITS // len(head.weight))
    parts = [
        select_candidates(head.logits(states), gold, **limits).to("cpu")
        for states, gold in zip(hidden.split(rows), batch.gold.split(rows), strict=True)
    ]
    return Candidates.cat(parts), batch.gold.cpu()


def is_cold(gold_in_set: float | None) -> str | None:
    """A warning where the literal loss can't teach much of the data, else None."""
    if gold_in_set is None or gold_in_set >= LOW_GOLD_IN_SET:
        return None
    return (
        f"the base's own sets hold only {100 * gold_in_set:.1f} % of the gold tokens (low: below "
        f"{100 * LOW_GOLD_IN_SET:.0f} %). Where gold had to be forced in, the restricted loss can "
        "reach zero while tokens outside the set keep their probability"
    )
