"""What a run watches on a fixed probe batch: the full cross-entropy, from which loss spikes are
judged, and the outside mass of its sets under the current model. Both stream over chunks of the
vocabulary."""

import statistics
from dataclasses import dataclass

import torch

from lrmoclip.core.heads import head_of, supervised_hidden
from lrmoclip.core.losses import probe
from lrmoclip.core.precision import autocast
from lrmoclip.data.batches import collate
from lrmoclip.train.run import Run

SPIKE_MADS, SPIKE_FLOOR = 5.0, 0.1  # nats above the running median
RISE, HIGH = 2.0, 0.05  # an outside mass that doubles and passes 5 % is worth a warning


@dataclass(frozen=True)
class ProbeBatch:
    """The first `records` of a run's domain, at every call the same."""

    records: int

    @torch.no_grad()
    def measure(self, run: Run) -> dict[str, float]:
        """Mean full cross-entropy (nats) and, where there are sets, mean outside mass (0 to 1)."""
        model, source = run.model, run.domain
        chosen = list(range(min(self.records, len(source.data))))
        batch = collate(source.data, chosen).to(model.device)
        sets = run.loss.sets(batch, source.sets(chosen, model.device))
        training = model.training
        model.eval()
        with autocast(run.precision, model.device, keep=False):
            hidden = supervised_hidden(model, batch.input_ids, batch.supervised)
            seen = probe(hidden, candidates=sets, targets=batch.gold, **head_of(model)._asdict())
        model.train(training)
        measures = {"probe_cross_entropy": float(seen.cross_entropy.mean())}
        if sets is not None:
            measures["outside_mass"] = float(seen.log_outside.exp().mean())
        return measures


def loss_spikes(cross_entropies: list[float]) -> int:
    """Probes above the median of all earlier ones by 5 median absolute deviations and by 0.1 nats.

    The first four are never judged: a median of fewer says nothing.
    """
    spikes = 0
    for i in range(4, len(cross_entropies)):
        earlier, now = cross_entropies[:i], cross_entropies[i]
        middle = statistics.median(earlier)
        spread = statistics.median(abs(value - middle) for value in earlier)
        spikes += now > middle + max(SPIKE_MADS * spread, SPIKE_FLOOR)
    return spikes


def rises(outside: list[float]) -> str | None:
    """A warning where the mass outside the sets grew during training, else None."""
    if not outside or outside[-1] <= max(RISE * outside[0], HIGH):
        return None
    return (
        f"the probability outside the sets rose from {outside[0]:.3f} to {outside[-1]:.3f} "
        "during training. The loss does not see it: it looks better than the model is, and greedy "
        "answers leave the sets"
    )
