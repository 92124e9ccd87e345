"""Distillation from the stored sets, against dense probabilities in float64."""

from types import SimpleNamespace

import pytest
import torch

from lrmoclip.core.candidates import Candidates
from lrmoclip.core.heads import supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.methods import Need
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.full import Full, cross_entropy
from lrmoclip.methods.objectives.topk_distill import TopkDistill
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import train
from tests.support.runs import STAGE0, make_model, make_records, make_run, make_source

CHOSEN = [0, 3, 5]


def another_model() -> torch.nn.Module:
    """Not the one that the sets are of."""
    model, dice = make_model().double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=dice))
    return model


def dense_loss(model, batch, sets, weight: float) -> torch.Tensor:
    """One position at a time."""
    log_p = supervised_logits(model, batch.input_ids, batch.supervised).log_softmax(1)
    ids, logp = (column.split(sets.sizes.tolist()) for column in (sets.ids, sets.logp.double()))
    losses = []
    for t, gold in enumerate(batch.gold):
        q = logp[t].exp() / logp[t].exp().sum()
        apart = (q * (q.log() - log_p[t, ids[t]])).sum()
        losses.append(-(1 - weight) * log_p[t, gold] + weight * apart)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_loss_and_gradients_are_the_definitions(weight):
    data = make_records()
    batch, store = collate(data, CHOSEN), make_source(make_model(), data).store
    sets = store.batch(CHOSEN)
    assert len(sets.sizes.unique()) > 1  # ragged
    ours, theirs = another_model(), another_model()

    loss = TopkDistill(weight=weight).start([data]).of
    got = loss(Context(ours, batch, sets, None, None))
    want = dense_loss(theirs, batch, sets, weight)
    got.backward()
    want.backward()

    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_with_sets_of_gold_alone_it_is_cross_entropy():
    """q is one at gold then, so that both parts are the same."""
    data = make_records()
    batch, model = collate(data, CHOSEN), another_model()
    count = len(batch.gold)
    zeros = torch.zeros(count)
    stored = torch.full((count,), -3.0)
    sets = Candidates(batch.gold, torch.arange(count + 1), zeros.bool(), stored, zeros, zeros)

    got = TopkDistill(weight=0.4).start([data]).of(Context(model, batch, sets, None, None))

    want = cross_entropy(Context(model, batch, None, None, None))
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_more_weight_ends_nearer_to_the_base_and_the_probe_sees_its_sets():
    model, data = make_model(), make_records()
    source = make_source(model, data)

    def ends_at(weight: float) -> float:
        run = make_run(model, {"objective": {"name": "topk_distill", "weight": weight}}, source)
        log = train(run, ProbeBatch(4))
        assert all(0 < row["outside_mass"] < 1 for row in log if "outside_mass" in row)
        chosen = list(range(len(data)))
        context = Context(run.model, collate(data, chosen), source.store.batch(chosen), None, None)
        return float(TopkDistill(weight=1.0).start([data]).of(context).detach())

    assert 0 < ends_at(1.0) < ends_at(0.01)


def test_it_needs_a_store_and_reads_it_as_it_is_told():
    entry = TopkDistill(weight=0.5, coverage=0.5, k_max=3)
    assert entry.needs == {Need.STORE}
    assert entry.narrowed(STAGE0.model_dump()) == {"coverage": 0.5, "k_min": 1, "k_max": 3}
    assert TopkDistill(weight=0.5).narrowed(STAGE0.model_dump()) is None
    with pytest.raises(ValueError, match=r"Raise stage0\.k_max"):
        TopkDistill(weight=0.5, k_max=6).narrowed(STAGE0.model_dump())


def test_the_whole_head_is_charged():
    shape = SimpleNamespace(vocabulary=1000, head=8000)
    entry = TopkDistill(weight=0.5)

    assert entry.products(shape, 4) == Full().products(shape, 4) == 8000
    assert entry.values(10, shape, 4) == Full().values(10, shape, 4) + 3 * 10 * 4


@pytest.mark.parametrize("weight", [0.0, 1.1])
def test_a_weight_outside_of_zero_to_one_is_refused(weight):
    with pytest.raises(ValueError, match="weight"):
        TopkDistill(weight=weight)
