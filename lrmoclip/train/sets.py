"""The candidate sets of a run: Stage 0 collected again, with the model as it is then, in memory and
read like a store; and statistics of the sets as an objective sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lrmoclip.config.parts import Stage0
from lrmoclip.core import sharding
from lrmoclip.core.candidates import Candidates, offsets_of, ranges
from lrmoclip.core.store import CandidateStore
from lrmoclip.core.tally import Tally
from lrmoclip.data.batches import Encoded, collate
from lrmoclip.methods.axes import Loss, as_stored
from lrmoclip.train.stage0 import collect_batch

if TYPE_CHECKING:
    from lrmoclip.train.run import TrainingSet

RECORDS = 64  # read at a time, where sets are counted


@dataclass(frozen=True)
class Collected:
    """The sets of all records, in their order; positions (R,) int64: how many each record has."""

    sets: Candidates
    positions: Tensor

    def batch(self, indices: Sequence[int]) -> Candidates:
        """As `CandidateStore.batch`."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        begin = offsets_of(self.positions)[chosen]
        return self.sets.select(ranges(begin, self.positions[chosen]))


def read_at(store: CandidateStore) -> Stage0:
    """The settings at which a store is read."""
    settings = {key: store.manifest["settings"][key] for key in Stage0.model_fields}
    if store.limits:
        settings |= dict(zip(("coverage", "k_min", "k_max"), store.limits, strict=True))
    return Stage0(**settings)


def collect_again(model, data: Encoded, settings: Stage0, precision: str) -> Collected:
    """Stage 0 of the model as it is, in eval mode. Of a sharded one, each process does its share,
    and all have all sets."""
    rank, ranks = sharding.place()
    starts = list(range(0, len(data), settings.batch_size))
    training, mine = model.training, {}
    model.eval()
    for place in range(rank, rank + len(starts), ranks):
        # Every process makes as many passes: a shard is gathered by all of them.
        start = starts[min(place, len(starts) - 1)]
        mine[start], _ = collect_batch(model, data, start, settings, precision)
    model.train(training)
    found = {start: sets for part in sharding.everyone(mine) for start, sets in part.items()}
    return Collected(Candidates.cat([found[start] for start in starts]), data.supervised)


def statistics(source: "TrainingSet", loss: Loss) -> dict:
    """`Tally.summary` of the sets of a source as an objective sees them, as far as it is known."""
    data, store = source.data, source.store
    if store is None:
        return {"set_size_mean": loss.size, "set_size_max": loss.size}
    if loss.sets is as_stored and source.fresh is None and store.limits is None:
        return store.manifest["statistics"]
    tally, here = Tally(store.manifest["eos_id"]), torch.device("cpu")
    for start in range(0, len(data), RECORDS):
        chosen = list(range(start, min(start + RECORDS, len(data))))
        batch = collate(data, chosen)
        tally.add(loss.sets(batch, source.sets(chosen, here)), batch.gold)
    return tally.summary()
