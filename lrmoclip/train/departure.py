"""How far a model has moved from its base: KL(base || model) in nats a token on general text that
nothing trains on and on the domain's validation records, the rise of the cross-entropy on that
text, and the distance of the weights. arXiv 2509.04259 finds that the divergence predicts
forgetting."""

import math

import torch

from lrmoclip.core.heads import head_of, supervised_hidden
from lrmoclip.core.precision import autocast
from lrmoclip.data.batches import Encoded, collate
from lrmoclip.train.workbench import Workbench

LOGITS = 2**22  # of each model that are held at a time
RECORDS = 32  # of a forward pass


def departure(bench: Workbench, model) -> dict[str, float]:
    """kl_general, kl_domain, nll_general (its rise), all in nats a supervised token, and drift:
    |theta - theta_0| / |theta_0| over all weights. `model` is whole, as `Run.merged` gives it."""
    training = model.training
    model.eval()
    general, rise = divergence(bench.model, model, bench.held_out, bench.precision)
    domain, _ = divergence(bench.model, model, bench.validation, bench.precision)
    model.train(training)
    return {
        "kl_general": general,
        "kl_domain": domain,
        "nll_general": rise,
        "drift": drift(bench.model, model),
    }


@torch.no_grad()
def divergence(base, model, data: Encoded, precision: str = "float32") -> tuple[float, float]:
    """(mean KL(base || model), mean cross-entropy of the model minus the base's) over the
    supervised positions of `data`, in nats, summed up in float64."""
    total, rise, positions = 0.0, 0.0, 0
    for start in range(0, len(data), RECORDS):
        chosen = list(range(start, min(start + RECORDS, len(data))))
        batch = collate(data, chosen).to(base.device)
        with autocast(precision, base.device):
            states = [
                supervised_hidden(m, batch.input_ids, batch.supervised) for m in (base, model)
            ]
        heads = [head_of(m) for m in (base, model)]
        rows = max(1, LOGITS // len(heads[0].weight))
        for one, other, gold in zip(
            *(s.split(rows) for s in states), batch.gold.split(rows), strict=True
        ):
            b, p = (
                head.logits(hidden).float().log_softmax(1)  # (rows, V)
                for head, hidden in zip(heads, (one, other), strict=True)
            )
            total += float((b.exp() * (b - p)).sum(1).double().sum())
            rise += float((b - p).gather(1, gold[:, None]).double().sum())
        positions += len(batch.gold)
    return total / positions, rise / positions


@torch.no_grad()
def drift(base, model) -> float:
    """|theta - theta_0| / |theta_0|, over the parameters of the base."""
    trained = dict(model.named_parameters())
    moved = norm = 0.0
    for name, parameter in base.named_parameters():
        moved += float((trained[name] - parameter).double().square().sum())
        norm += float(parameter.double().square().sum())
    return math.sqrt(moved / norm)
