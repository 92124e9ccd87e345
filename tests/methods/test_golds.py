"""Sets with the training data's gold tokens added, against dense logits with others masked."""

from types import SimpleNamespace

import pytest
import torch

from lrmoclip.core.heads import head_of, supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.full import Full
from lrmoclip.methods.objectives.golds import tokens_of, united
from lrmoclip.methods.objectives.restricted import Restricted
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import train
from lrmoclip.train.summary import run_summary
from tests.conftest import Allocations
from tests.reference import oracle
from tests.support.runs import make_model, make_records, make_run, make_source

AXES = {"objective": {"name": "restricted", "golds": True}}
CHOSEN = [0, 3, 5]


def rows_of(sets) -> list[list[int]]:
    return [row.tolist() for row in sets.ids.split(sets.sizes.tolist())]


def test_each_row_is_the_stored_one_and_then_the_golds_that_it_lacks():
    data = make_records()
    batch, sets = collate(data, CHOSEN), make_source(make_model(), data).store.batch(CHOSEN)
    golds = sorted(set(data.gold.tolist()))

    got = united(tokens_of([data]), batch, sets)

    want = [row + [token for token in golds if token not in row] for row in rows_of(sets)]
    assert rows_of(got) == want
    got.check(50)
    of_stored = torch.isfinite(got.logp)
    assert torch.equal(got.logp[of_stored], sets.logp) and int(of_stored.sum()) == len(sets.ids)
    assert torch.equal(got.prob[of_stored], sets.prob) and not got.prob[~of_stored].any()
    assert torch.equal(got.gold_forced, sets.gold_forced)


@pytest.mark.parametrize("denominator", ["own", "union"])
def test_loss_and_gradients_are_the_oracles_over_the_united_sets(denominator):
    data = make_records()
    batch, sets = collate(data, CHOSEN), make_source(make_model(), data).store.batch(CHOSEN)
    golds = set(data.gold.tolist())
    rows = [sorted(golds | set(row)) for row in rows_of(sets)]
    ours, theirs = make_model().double(), make_model().double()

    loss = Restricted(golds=True, denominator=denominator).start([data]).of
    got = loss(Context(ours, batch, sets, None, None))
    z = supervised_logits(theirs, batch.input_ids, batch.supervised)
    losses = {"own": oracle.restricted_losses, "union": oracle.union_losses}[denominator]
    want = losses(z, rows, batch.gold.tolist()).mean()
    got.backward()
    want.backward()

    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_no_product_is_as_wide_as_the_vocabulary():
    data, model = make_records(4), make_model(vocabulary=50_000)
    source, batch = make_source(model, data), collate(data, [0, 1])
    loss = Restricted(golds=True).start([data])
    head_of(model)  # the model's own logits are tried once, on a few rows

    with Allocations() as seen:
        loss.of(Context(model, batch, source.store.batch([0, 1]), None, None)).backward()

    assert not [shape for shape in seen.shapes if shape and shape[-1] == 50_000 and shape[0]]


def test_a_run_watches_the_mass_outside_of_the_united_sets_and_records_their_size():
    data, general = make_records(), make_records(seed=5)
    model = make_model()
    source, other = make_source(model, data), make_source(model, general)
    run = make_run(model, {**AXES, "replay": 0.5}, source, general=other)
    log = train(run, ProbeBatch(4))
    summary = run_summary(log, run)

    golds = set(torch.cat([data.gold, general.gold]).tolist())  # replayed ones, too
    batch = collate(data, range(4))
    with torch.no_grad():
        p = supervised_logits(run.model.eval(), batch.input_ids, batch.supervised).softmax(1)
    rows = [list(golds | set(row)) for row in rows_of(source.store.batch(range(4)))]
    outside = sum(1 - p[t, row].sum() for t, row in enumerate(rows)) / len(rows)
    assert summary["outside_mass"] == pytest.approx(float(outside), rel=1e-4)
    sizes = [len(golds | set(row)) for row in rows_of(source.store.batch(range(len(data))))]
    assert summary["set_size_mean"] == pytest.approx(sum(sizes) / len(sizes))
    assert summary["set_size_max"] == max(sizes)


def test_less_mass_leaks_than_from_the_stored_sets():
    model, data = make_model(), make_records()
    source = make_source(model, data)

    def outside(**axes) -> float:
        run = make_run(model, {"objective": {"name": "restricted", **axes}}, source)
        train(run)
        batch = collate(data, range(len(data)))
        with torch.no_grad():
            p = supervised_logits(run.model.eval(), batch.input_ids, batch.supervised).softmax(1)
        sets = source.store.batch(range(len(data)))
        return float(1 - p[sets.rows, sets.ids].sum() / len(sets))

    assert outside(golds=True) < outside()


def test_memory_is_predicted_as_the_full_losss_for_the_golds_are_not_known():
    shape = SimpleNamespace(d=8, vocabulary=1000, head=8000)
    mine, plain = Restricted(golds=True), Restricted()

    assert mine.products(shape, 50) == plain.products(shape, 50)
    assert mine.values(10, shape, 4) == Full().values(10, shape, 4)
