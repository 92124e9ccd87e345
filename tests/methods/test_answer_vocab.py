"""Cross-entropy over the training data's own tokens, against dense logits with others masked."""

import math
from types import SimpleNamespace

import pytest
import torch
import transformers

from lrmoclip.core.heads import head_of, supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.answer_vocab import AnswerVocab
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.summary import run_summary
from tests.conftest import Allocations
from tests.support.runs import make_model, make_records, make_run

OBJECTIVE = {"objective": {"name": "answer_vocab"}}
VOCABULARY = 400
FAMILIES = {  # a head of its own with a bias; a tied one whose logits are capped
    "Phi": {"tie_word_embeddings": False},
    "Gemma2": {"tie_word_embeddings": True, "final_logit_softcapping": 0.5},
}


def model_of(family: str):
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "head_dim": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**shape, **FAMILIES[family])
    return getattr(transformers, f"{family}ForCausalLM")(config).double()


def dense_loss(model, batch, tokens: list[int]) -> torch.Tensor:
    logits = supervised_logits(model, batch.input_ids, batch.supervised)  # (N, V)
    outside = torch.ones(logits.shape[1], dtype=torch.bool)
    outside[tokens] = False
    z = logits.masked_fill(outside, -math.inf)
    return (z.logsumexp(1) - z[torch.arange(len(z)), batch.gold]).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_masked_dense_logits(family):
    ours, theirs = model_of(family), model_of(family)
    if ours.lm_head.bias is not None:
        for model in (ours, theirs):
            model.lm_head.bias.data = torch.linspace(-1, 1, VOCABULARY, dtype=torch.double)
    data = make_records(8, VOCABULARY)
    batch = collate(data, [0, 3, 5])
    tokens = sorted(set(data.gold.tolist()))
    assert set(batch.gold.tolist()) < set(tokens) and len(tokens) < VOCABULARY

    got = AnswerVocab().start([data]).of(Context(ours, batch, None, None, torch.Generator()))
    want = dense_loss(theirs, batch, tokens)
    got.backward()
    want.backward()

    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-8, msg=name)


def test_no_row_of_the_head_outside_the_set_is_multiplied():
    data, model = make_records(8), make_model(vocabulary=50_000)
    loss, batch = AnswerVocab().start([data]), collate(data, [0, 1])
    head_of(model)  # the model's own logits are tried once, on a few rows

    with Allocations() as seen:
        loss.of(Context(model, batch, None, None, torch.Generator())).backward()

    assert loss.size == len(data.gold.unique()) < 50
    assert not [shape for shape in seen.shapes if shape and shape[-1] == 50_000 and shape[0]]


def test_replayed_answers_are_in_the_set():
    domain, general = make_records(2, seed=1), make_records(8, seed=2)
    run = make_run(
        make_model(), {**OBJECTIVE, "replay": 0.5}, TrainingSet(domain),
        general=TrainingSet(general),
    )  # fmt: skip

    assert run.loss.size == len(torch.cat([domain.gold, general.gold]).unique())
    assert math.isfinite(run.step()["loss"])


def test_a_run_needs_no_store_and_watches_what_is_outside():
    data = make_records()
    run = make_run(make_model(), OBJECTIVE, TrainingSet(data))
    assert not run.method.needs

    log = train(run, ProbeBatch(4))
    summary = run_summary(log, run)

    batch = collate(data, range(4))
    with torch.no_grad():
        p = supervised_logits(run.model.eval(), batch.input_ids, batch.supervised).softmax(1)
    outside = 1 - p[:, data.gold.unique()].sum(1)
    assert summary["outside_mass"] == pytest.approx(float(outside.mean()), rel=1e-4)
    assert summary["set_size_mean"] == len(data.gold.unique())
    assert log[-2]["loss"] < log[0]["loss"]


def test_it_is_charged_for_its_own_tokens_alone():
    shape = SimpleNamespace(d=8, vocabulary=1000, head=8000)
    entry = AnswerVocab()

    assert entry.products(shape, 50) == 8 * 50
    assert entry.products(shape, 0) == shape.head  # the data are not known yet
    assert entry.values(10, shape, 50) < entry.values(10, shape, 0)
