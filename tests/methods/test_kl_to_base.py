"""The pull to the base's probabilities, against the definition in float64."""

import copy

import pytest
import torch

from lrmoclip.core.heads import supervised_logits
from lrmoclip.cost import flops
from lrmoclip.data.batches import collate
from lrmoclip.methods import Need
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.full import cross_entropy
from lrmoclip.methods.objectives.kl_to_base import KlToBase
from lrmoclip.train.run import TrainingSet, train
from tests.support.runs import make_model, make_records, make_run, point

AXES = {"objective": {"name": "kl_to_base", "weight": 0.7}}


def test_loss_is_cross_entropy_and_the_weighted_divergence_from_the_base():
    base, model = make_model().double(), make_model().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    data = make_records()
    batch = collate(data, [0, 3, 5])

    got = KlToBase(weight=0.7).start([data]).of(Context(model, batch, None, base, None))

    b, p = (
        supervised_logits(m, batch.input_ids, batch.supervised).softmax(1) for m in (base, model)
    )
    gold = p[torch.arange(len(p)), batch.gold]
    want = (-gold.log() + 0.7 * (b * (b / p).log()).sum(1)).mean()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)


def test_at_the_base_itself_its_gradient_is_that_of_cross_entropy():
    base, data = make_model(), make_records()
    batch, (one, other) = collate(data, [1, 2]), (copy.deepcopy(base), copy.deepcopy(base))

    KlToBase(weight=5.0).start([data]).of(Context(one, batch, None, base, None)).backward()
    cross_entropy(Context(other, batch, None, None, None)).backward()

    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_stronger_pull_ends_nearer_to_the_base_which_stays_as_it_is():
    base, data = make_model().eval(), make_records()
    before = copy.deepcopy(base.state_dict())

    def ends_at(weight: float) -> float:
        axes = {"objective": {"name": "kl_to_base", "weight": weight}}
        run = make_run(base, axes, TrainingSet(data), {"epochs": 6}, base=base)
        train(run)
        batch = collate(data, range(len(data)))
        loss = KlToBase(weight=1.0).start([data]).of
        full = cross_entropy(Context(run.model, batch, None, None, None))
        return float(loss(Context(run.model, batch, None, base, None)) - full)

    assert 0 < ends_at(10.0) < ends_at(0.01) / 2
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name])


def test_it_needs_the_base_and_is_charged_for_its_pass():
    from types import SimpleNamespace

    shape = SimpleNamespace(body=100, head=50, vocabulary=10, d=5, parameters=150)
    mine, full = point(**AXES), point()

    assert Need.BASE in mine.needs
    more = flops.training(mine, shape, 0.5, 0) - flops.training(full, shape, 0.5, 0)
    assert more == pytest.approx(2 * (100 + 0.5 * 50))
