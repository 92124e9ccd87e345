"""How far a model moved, against the definitions in float64."""

import copy

import pytest
import torch

from lrmoclip.core.heads import supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.train import departure
from lrmoclip.train.departure import divergence, drift
from tests.support.runs import make_model, make_records


@pytest.fixture
def pair():
    base = make_model().eval()
    model = copy.deepcopy(base)
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=dice))
    return base, model


@pytest.mark.parametrize("rows", [1, 3, 10**6])
def test_divergence_is_its_definition_however_it_is_cut(pair, monkeypatch, rows):
    monkeypatch.setattr(departure, "LOGITS", rows * 50)
    monkeypatch.setattr(departure, "RECORDS", 5)
    data = make_records()

    got = divergence(*pair, data)

    batch = collate(data, range(len(data)))
    b, p = (
        supervised_logits(copy.deepcopy(m).double(), batch.input_ids, batch.supervised).softmax(1)
        for m in pair
    )
    place = torch.arange(len(b))
    rise = (b[place, batch.gold] / p[place, batch.gold]).log().mean()
    assert got == pytest.approx((float((b * (b / p).log()).sum(1).mean()), float(rise)), rel=1e-4)


def test_a_model_has_not_moved_from_itself(pair):
    base, _ = pair
    assert divergence(base, base, make_records()) == pytest.approx((0, 0), abs=1e-7)
    assert drift(base, base) == 0


def test_drift_is_the_relative_distance_of_all_weights(pair):
    base, model = pair
    one, other = (torch.cat([p.double().flatten() for p in m.parameters()]) for m in pair)
    assert drift(base, model) == pytest.approx(float((other - one).norm() / one.norm()))
