"""The restricted loss without one of its parts: positions whose gold was forced in, and the
renormalisation; against dense logits."""

from types import SimpleNamespace

import pytest
import torch
import transformers

from lrmoclip.core.heads import head_of, supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.methods.axes import REPAIR, REPLAY, Context
from lrmoclip.methods.objectives.naive import naive_losses
from lrmoclip.methods.objectives.restricted import Restricted
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import train
from tests.reference import oracle
from tests.support.runs import make_model, make_records, make_run, make_source

DROPPED = {"objective": {"name": "restricted", "gold": "dropped"}}
NAIVE = {"objective": {"name": "restricted", "gold": "dropped", "denominator": "base"}}
CHOSEN = list(range(12))


@pytest.fixture
def problem():
    """A batch, and sets of which some hold gold by themselves and some had it forced in."""
    data = make_records()
    sets = make_source(make_model(), data, coverage=1.0, k_max=25).store.batch(CHOSEN)
    assert 0 < int(sets.gold_forced.sum()) < len(sets)
    return collate(data, CHOSEN), sets


def moved_model() -> torch.nn.Module:
    model, dice = make_model().double(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=dice))
    return model


def assert_is(want, entry: Restricted, batch, sets) -> None:
    """Loss and gradients of `entry` are those of the mean of want(logits), (N,)."""
    ours, theirs = moved_model(), moved_model()
    got = entry.start([]).of(Context(ours, batch, sets, None, None))
    expected = want(supervised_logits(theirs, batch.input_ids, batch.supervised)).mean()
    got.backward()
    expected.backward()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_dropped_positions_count_as_zero(problem):
    batch, sets = problem
    rows = [row.tolist() for row in sets.ids.split(sets.sizes.tolist())]
    kept = batch.gold.masked_fill(sets.gold_forced, -1).tolist()

    assert_is(
        lambda z: oracle.restricted_losses(z, rows, kept), Restricted(gold="dropped"), *problem
    )


def test_the_naive_loss_is_the_bases_partition_less_golds_logit(problem):
    batch, sets = problem
    each = torch.arange(len(sets))

    def want(z):
        return sets.log_z.double() - z[each, batch.gold]

    assert_is(want, Restricted(denominator="base"), *problem)
    assert_is(
        lambda z: want(z).masked_fill(sets.gold_forced, 0),
        Restricted(denominator="base", gold="dropped"),
        *problem,
    )


def test_the_naive_gradient_is_golds_row_however_probable_gold_is(problem):
    batch, sets = problem
    head = head_of(make_model().double())
    states = torch.zeros(len(sets), 16, dtype=torch.double)
    for scale in (0, 100):  # all tokens alike; gold nearly certain
        hidden = (states + scale * head.weight[batch.gold].detach()).requires_grad_()
        naive_losses(hidden, head, sets, batch.gold).sum().backward()
        assert torch.equal(hidden.grad, -head.weight[batch.gold])


@pytest.mark.parametrize("family", ["Phi", "Gemma2"])
def test_a_heads_bias_and_cap_are_in_the_naive_loss(family):
    more = {
        "Phi": {"tie_word_embeddings": False},
        "Gemma2": {"tie_word_embeddings": True, "final_logit_softcapping": 0.5},
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50, hidden_size=16, intermediate_size=24, head_dim=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, **more[family],
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(config).double().eval()
    if model.lm_head.bias is not None:
        model.lm_head.bias.data = torch.linspace(-1, 1, 50, dtype=torch.double)
    data = make_records()
    batch, sets = collate(data, CHOSEN), make_source(make_model(), data).store.batch(CHOSEN)

    got = Restricted(denominator="base").start([]).of(Context(model, batch, sets, None, None))

    z = supervised_logits(model, batch.input_ids, batch.supervised)
    want = (sets.log_z.double() - z[torch.arange(len(z)), batch.gold]).mean()
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)


@pytest.mark.parametrize("axes", [DROPPED, NAIVE])
def test_a_step_is_the_same_in_several_passes(axes):
    model, data = make_model(), make_records()
    source = make_source(model, data, coverage=1.0, k_max=25)
    whole, cut = (make_run(model, axes, source, more) for more in ({}, {"micro_batch": 1}))

    losses = [[row["loss"] for row in train(run)[:-1]] for run in (whole, cut)]

    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_naive_loss_has_no_lower_bound():
    model, data = make_model(), make_records()
    source = make_source(model, data, coverage=1.0, k_max=25)
    log = train(make_run(model, NAIVE, source, {"epochs": 30}), ProbeBatch(4))

    assert log[-2]["loss"] < 0 < log[-1]["probe_cross_entropy"]


def test_what_each_is_called_and_charged():
    shape = SimpleNamespace(d=8, vocabulary=1000, head=8000)
    naive, dropped = Restricted(denominator="base"), Restricted(gold="dropped")

    assert (naive.family, dropped.family, Restricted().family) == (REPLAY, REPAIR, REPLAY)
    assert naive.products(shape, 8) == 8  # gold's row alone
    assert dropped.products(shape, 8) == Restricted().products(shape, 8)
    assert naive.values(10, shape, 8) < dropped.values(10, shape, 8)


@pytest.mark.parametrize("other", [{"negatives": 4}, {"tail": True}, {"golds": True}])
def test_the_naive_loss_has_nothing_that_could_be_widened(other):
    with pytest.raises(ValueError, match=r"union|tail|golds"):
        Restricted(denominator="base", **other)
