"""The constant column for the base's outside mass, against dense logits in float64."""

import math

import pytest
import torch

from lrmoclip.core.heads import supervised_logits
from lrmoclip.core.losses import restricted_linear_cross_entropy
from lrmoclip.data.batches import collate
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.restricted import Restricted
from tests.support.runs import make_model, make_records, make_run, make_source

AXES = {"objective": {"name": "restricted", "tail": True}}
CHOSEN = [0, 3, 5]


def moved_model() -> torch.nn.Module:
    model, dice = make_model().double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=dice))
    return model


def dense_loss(model, batch, sets) -> torch.Tensor:
    """One position at a time: log(sum over the set and the base's own exp(log Z) rho) - z_y."""
    z = supervised_logits(model, batch.input_ids, batch.supervised)
    rows = sets.ids.split(sets.sizes.tolist())
    outside = sets.log_z.double().exp() * sets.log_outside.double().exp()
    losses = [
        (z[t, rows[t]].exp().sum() + outside[t]).log() - z[t, gold]
        for t, gold in enumerate(batch.gold)
    ]
    return torch.stack(losses).mean()


def test_loss_and_gradients_are_the_definitions():
    data = make_records()
    batch, sets = collate(data, CHOSEN), make_source(make_model(), data).store.batch(CHOSEN)
    assert len(sets.sizes.unique()) > 1  # ragged
    ours, theirs = moved_model(), moved_model()

    got = Restricted(tail=True).start([data]).of(Context(ours, batch, sets, None, None))
    want = dense_loss(theirs, batch, sets)
    got.backward()
    want.backward()

    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-8, msg=name)


def test_at_the_base_itself_it_is_the_full_cross_entropy():
    data = make_records()
    batch, model = collate(data, CHOSEN), make_model().eval()
    sets = make_source(model, data).store.batch(CHOSEN)

    got = Restricted(tail=True).start([data]).of(Context(model, batch, sets, None, None))

    logits = supervised_logits(model, batch.input_ids, batch.supervised)
    want = torch.nn.functional.cross_entropy(logits, batch.gold)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("path", ["gather", "union"])
def test_a_tail_of_nothing_is_none_and_ignored_positions_count_for_nothing(path):
    data = make_records()
    batch, model = collate(data, CHOSEN), make_model().eval()
    sets = make_source(model, data).store.batch(CHOSEN)
    dice = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=dice) for n in (len(sets), 50))
    targets = batch.gold.clone()
    targets[1] = -100

    def losses(**more) -> torch.Tensor:
        return restricted_linear_cross_entropy(
            hidden, weight, sets, targets, path=path, reduction="none", **more
        )

    nothing = torch.full((len(sets),), -math.inf)
    torch.testing.assert_close(losses(tail=nothing), losses(), rtol=1e-6, atol=1e-7)
    more = losses(tail=torch.zeros(len(sets)))
    assert more[1] == 0
    assert (more > losses()).sum() == len(sets) - 1


def test_a_run_trains_with_it():
    run = make_run(make_model(), AXES, make_source(make_model(), make_records()))
    losses = [run.step()["loss"] for _ in range(run.steps)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("other", [{"denominator": "union"}, {"golds": True}])
def test_it_does_not_go_with_wider_sets(other):
    with pytest.raises(ValueError, match="the tail is of the stored sets"):
        Restricted(tail=True, **other)
