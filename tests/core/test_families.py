"""Sixteen families of causal LMs, small and random: the restricted loss and the gradient of every
parameter against the model's own dense logits, masked."""

import copy

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from lrmoclip.core.candidates import Candidates, select_candidates
from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import head_of, supervised_hidden
from lrmoclip.core.losses import probe
from lrmoclip.data.batches import IGNORE, Batch
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.restricted import Restricted
from tests.reference import oracle

VOCABULARY = 300
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    **TOKENS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
    "attention_bias": True,
}
TIED = {**LLAMA, "tie_word_embeddings": True}
GPT = {
    **TOKENS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    **dict.fromkeys(["resid_pdrop", "embd_pdrop", "attn_pdrop"], 0.0),
}
# Maps strong enough that no test would pass without them.
FAMILIES = {
    "Llama": LLAMA,
    "Mistral": LLAMA,
    "Qwen2": TIED,
    "Qwen3": TIED,
    "Qwen3Moe": {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Gemma2": {**TIED, "final_logit_softcapping": 0.5},
    "Gemma3Text": {**TIED, "final_logit_softcapping": 0.5},
    "Phi": {**LLAMA, "partial_rotary_factor": 0.5},  # bias on the head
    "Phi3": LLAMA,
    "GPT2": GPT,  # tied
    "GPTJ": {**GPT, "rotary_dim": 4, "tie_word_embeddings": False},  # bias on the head
    "GPTNeoX": LLAMA,
    "Olmo2": LLAMA,
    "Granite": {**TIED, "logits_scaling": 3.0},  # divides
    "Cohere": {**TIED, "logit_scale": 0.3},
    "HyperCLOVAX": {**LLAMA, "logits_scaling": 3.0},  # multiplies
}
OPTIONS = {"Qwen3Moe": {"experts_implementation": "eager"}}  # the one that knows float64


def build(family: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    model = transformers.AutoModelForCausalLM.from_config(config, **OPTIONS.get(family, {}))
    model = model.to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # none at zero or one, logits well apart
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(seed: int = 1) -> Batch:
    """Two rows of nine tokens; the first positions and the end of one row are unsupervised."""
    dice = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (2, 10), generator=dice)
    targets = ids[:, 1:].clone()
    targets[:, :2] = targets[1, -3:] = IGNORE
    return Batch(ids[:, :-1], targets)


@torch.no_grad()
def make_sets(model: nn.Module, batch: Batch) -> Candidates:
    """Sets of a few tokens, the gold forced in nearly everywhere."""
    logits = dense_logits(model, batch)
    return select_candidates(logits, batch.gold, coverage=0.5, k_min=2, k_max=6)


def dense_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The model's own, of every position and token: (N, V) of the supervised ones."""
    return model(input_ids=batch.input_ids, use_cache=False).logits[batch.supervised]


def dense_loss(model: nn.Module, batch: Batch, sets: Candidates, denominator: str) -> Tensor:
    losses = {"own": oracle.restricted_losses, "union": oracle.union_losses}[denominator]
    rows = [sets.select(torch.tensor([i])).ids.tolist() for i in range(len(sets))]
    return losses(dense_logits(model, batch), rows, batch.gold.tolist()).mean()


def restricted_loss(
    model: nn.Module, batch: Batch, sets: Candidates, denominator: str = "own"
) -> Tensor:
    loss = Restricted(denominator=denominator).start([])
    return loss.of(Context(model, batch, sets, None, torch.Generator()))


def gradients(model: nn.Module, *losses: Tensor) -> dict[str, Tensor]:
    """Of every trainable parameter, none missing, summed over the losses."""
    model.zero_grad(set_to_none=True)
    for loss in losses:
        loss.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, g in found.items() if g is None or not g.any()] == []
    return found


def assert_same_as_dense(model: nn.Module, reference: nn.Module, denominator: str = "own") -> None:
    """Loss and gradients of `model` by the restricted path, of `reference` by dense logits."""
    batch = make_batch()
    sets = make_sets(reference, batch)
    expected = dense_loss(reference, batch, sets, denominator)
    loss = restricted_loss(model, batch, sets, denominator)

    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    assert_close(gradients(model, loss), gradients(reference, expected))


def assert_close(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for (name, g), e in zip(mine.items(), theirs.values(), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-8, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("denominator", ["own", "union"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_every_gradient_are_those_of_the_models_own_logits(family, denominator):
    model = build(family)

    assert_same_as_dense(model, copy.deepcopy(model), denominator)


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Phi"])  # untied, tied, with a bias
def test_gradients_accumulate_over_micro_batches(family):
    model = build(family)
    reference, batches = copy.deepcopy(model), [make_batch(1), make_batch(2)]
    sets = [make_sets(model, batch) for batch in batches]
    pairs = list(zip(batches, sets, strict=True))

    mine = gradients(model, *(restricted_loss(model, *pair) for pair in pairs))

    theirs = gradients(reference, *(dense_loss(reference, *pair, "own") for pair in pairs))
    assert_close(mine, theirs)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_streamed_probe_is_that_of_the_models_own_logits(family):
    model, batch = build(family), make_batch()
    sets, z = make_sets(model, batch), dense_logits(model, batch)

    weight, bias, logit_map = head_of(model)
    hidden = supervised_hidden(model, batch.input_ids, batch.supervised)
    seen = probe(hidden, weight, sets, batch.gold, bias=bias, logit_map=logit_map, chunk=64)

    expected = F.cross_entropy(z, batch.gold, reduction="none")
    torch.testing.assert_close(seen.cross_entropy, expected)
    torch.testing.assert_close(seen.log_outside, sets.log_outside.double(), rtol=1e-4, atol=1e-5)


def test_families_are_tied_and_untied_mapped_and_not_with_bias_and_without():
    heads = {family: head_of(build(family)) for family in FAMILIES}

    tied = [f for f in FAMILIES if getattr(build(f).config, "tie_word_embeddings", False)]
    assert tied == ["Qwen2", "Qwen3", "Gemma2", "Gemma3Text", "GPT2", "Granite", "Cohere"]
    assert [f for f, head in heads.items() if head.bias is not None] == ["Phi", "GPTJ"]
    mapped = {f: tuple(head.logit_map) for f, head in heads.items() if head.logit_map}
    assert mapped == {
        "Gemma2": (1, 0.5), "Gemma3Text": (1, 0.5), "Granite": (1 / 3, None), "Cohere": (0.3, None),
        "HyperCLOVAX": (3, None),
    }  # fmt: skip


# What a user does to a model: one family without a map, one with

BOTH = pytest.mark.parametrize("family", ["Qwen3", "Gemma2"])


@BOTH
def test_with_gradient_checkpointing(family):
    model = build(family).train()
    reference = copy.deepcopy(model)
    model.gradient_checkpointing_enable()
    passes = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))

    assert_same_as_dense(model, reference)

    assert len(passes) == 2  # once more in the backward pass: checkpointing is real


@pytest.mark.filterwarnings("ignore::FutureWarning")
@BOTH
def test_with_low_rank_adapters(family):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0, init_lora_weights=False)
    model = get_peft_model(build(family), config)

    assert all("lora" in name for name, p in model.named_parameters() if p.requires_grad)
    assert_same_as_dense(model, copy.deepcopy(model))


@BOTH
def test_with_a_compiled_body(family):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model = build(family)
    reference = copy.deepcopy(model)
    model.model.compile(backend="aot_eager")

    assert_same_as_dense(model, reference)

    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    torch._dynamo.reset()


def assert_close_in_bfloat16(model: nn.Module, loss: Tensor, expected: Tensor) -> None:
    """The dense logits are rounded to bfloat16 and the restricted ones are not, which moves a
    gradient by up to 5 % of its norm: as far as either lies from the one in float64."""
    torch.testing.assert_close(loss, expected.to(loss.dtype), rtol=2e-2, atol=1e-2)
    mine, theirs = gradients(model, loss), gradients(model, expected)
    far = [n for n, g in theirs.items() if not (mine[n] - g).norm() < 0.1 * g.norm()]
    assert far == []


@BOTH
@pytest.mark.parametrize("denominator", ["own", "union"])
def test_in_bfloat16_autocast(family, denominator):
    model, batch = build(family, torch.float32), make_batch()
    sets = make_sets(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        expected = dense_loss(model, batch, sets, denominator)
        loss = restricted_loss(model, batch, sets, denominator)

    assert_close_in_bfloat16(model, loss, expected)


@BOTH
@pytest.mark.parametrize("denominator", ["own", "union"])
def test_a_model_in_bfloat16(family, denominator):
    model, batch = build(family, torch.bfloat16), make_batch()
    sets = make_sets(model, batch)

    loss = restricted_loss(model, batch, sets, denominator)

    assert_close_in_bfloat16(model, loss, dense_loss(model, batch, sets, denominator))
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16}


# Families out of reach


def test_a_family_that_cuts_its_logits_is_refused_by_name():
    config = transformers.InklingTextConfig(
        **LLAMA, unpadded_vocab_size=280, moe_intermediate_size=16, n_routed_experts=8
    )
    model = transformers.InklingForCausalLM(config)

    with pytest.raises(UserError, match=r"InklingForCausalLM: its logits are not a projection"):
        head_of(model)


def test_an_encoder_decoder_is_refused_by_name():
    config = transformers.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=1)
    model = transformers.T5ForConditionalGeneration(config)

    with pytest.raises(UserError, match="T5ForConditionalGeneration: an encoder-decoder"):
        head_of(model)
