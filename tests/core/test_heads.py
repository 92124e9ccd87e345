"""The vocabulary head, reached through the model's own forward and tried against it, or refused by
name. Whole families, losses and gradients: test_families.py."""

import copy
import gc
import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from torch import nn

from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import Head, ScaleAndCap, head_of, supervised_hidden, supervised_logits

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# family: its config, and the scale and cap that the family's source has in force
SERVED = {
    "Llama": (SMALL, None),
    "Qwen3": (SMALL | {"tie_word_embeddings": True}, None),
    "GPT2": (
        {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
         "bos_token_id": 1, "eos_token_id": 2},
        None,
    ),
    "Phi": (SMALL, None),  # its projection has a bias
    "Gemma2": (SMALL | {"final_logit_softcapping": 0.01}, (1, 0.01)),
    "Cohere": (SMALL | {"logit_scale": 0.25}, (0.25, None)),
    "Granite": (SMALL | {"logits_scaling": 4.0}, (0.25, None)),  # divides
    "HyperCLOVAX": (SMALL | {"logits_scaling": 4.0}, (4, None)),  # multiplies
    "FalconH1": (
        SMALL | {"lm_head_multiplier": 0.5, "mamba_d_ssm": 16, "mamba_n_heads": 2,
                 "mamba_d_head": 8, "mamba_d_state": 4},
        (0.5, None),
    ),
    "RecurrentGemma": (
        SMALL | {"lru_width": 16, "attention_window_size": 8, "logits_soft_cap": 0.01},
        (1, 0.01),
    ),
    "xLSTM": (
        {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_heads": 2,
         "output_logit_soft_cap": 0.01},
        (1, 0.01),
    ),
}  # fmt: skip


def build(family: str, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SERVED[family][0], **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        nn.init.normal_(head.bias)
    return model


def dense(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits  # (B, T, V)


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, T) and the positions to supervise: none in one row, the first and last elsewhere."""
    ids = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    supervised = torch.zeros(3, 7, dtype=torch.bool)
    supervised[0, [0, 3, 6]] = supervised[2, 5] = True
    return ids, supervised


@pytest.mark.parametrize("family", SERVED)
@torch.no_grad()
def test_supervised_logits_are_the_models_own(family, tokens):
    model, (ids, supervised) = build(family), tokens

    found = supervised_logits(model, ids, supervised)

    assert found.shape == (4, 60)
    torch.testing.assert_close(found, dense(model, ids)[supervised])


@pytest.mark.parametrize("family", SERVED)
@torch.no_grad()
def test_the_head_makes_the_models_logits_of_its_hidden_states(family, tokens):
    model, (ids, supervised) = build(family), tokens

    hidden = supervised_hidden(model, ids, supervised)
    head = head_of(model)

    assert hidden.shape == (4, 16)
    torch.testing.assert_close(head.logits(hidden), dense(model, ids)[supervised])
    assert head.logit_map == SERVED[family][1]
    assert head.weight is model.get_output_embeddings().weight
    assert (head.bias is not None) == (family == "Phi")


def test_a_cap_far_above_the_logits_is_found():
    model = build("Gemma2", final_logit_softcapping=30.0)  # untrained, its logits are below 1

    assert head_of(model).logit_map == (1, 30)
    assert head_of(model.to(torch.bfloat16)).logit_map == (1, 30)
    assert head_of(copy.deepcopy(model)).logit_map == (1, 30)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_a_config_says_and_the_model_does_not_do_is_left_out(dtype):
    model = build("Llama").to(dtype)
    model.config.logit_scale, model.config.final_logit_softcapping = 0.3, 500.0

    assert head_of(model).logit_map is None


class CappedInFloat(transformers.LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = torch.tanh(out.logits.float() / 5) * 5
        return out


def test_a_map_is_found_under_autocast(tokens):
    model = CappedInFloat(transformers.LlamaConfig(**SMALL))
    model.config.final_logit_softcapping = 5.0

    with torch.autocast("cpu", torch.bfloat16):
        supervised_hidden(model, *tokens)

    assert head_of(model).logit_map == (1, 5)


def test_a_config_changed_later_is_noticed():
    model = build("Gemma2")
    head_of(model)
    model.config.final_logit_softcapping = None

    assert head_of(model).logit_map is None


def test_a_scale_is_applied_before_the_cap():
    z = torch.tensor([-3.0, 0.0, 0.5])

    assert ScaleAndCap(2.0, 4.0)(z).tolist() == (4 * torch.tanh(2 * z / 4)).tolist()


def test_logits_are_computed_in_the_dtype_of_the_weight():
    head = Head(torch.randn(5, 3, dtype=torch.bfloat16))

    assert head.logits(torch.randn(2, 3)).dtype == torch.bfloat16


def test_gradients_reach_the_body_through_hidden_states(tokens):
    model, (ids, supervised) = build("Qwen3"), tokens

    for _ in range(2):  # the first call tries the head, the second does not
        model.zero_grad()
        supervised_hidden(model, ids, supervised).sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.model.layers.parameters())


def test_no_position_may_be_supervised(tokens):
    model, (ids, supervised) = build("Llama"), tokens

    for _ in range(2):
        assert supervised_hidden(model, ids, supervised & False).shape == (0, 16)


# Padding

LENGTHS, TEXT = [7, 4, 2], torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(2))


def padded(side: str, token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, T) of texts of several lengths and where they stand."""
    ids, text = torch.full((3, 7), token), torch.zeros(3, 7, dtype=torch.bool)
    for i, n in enumerate(LENGTHS):
        text[i, 7 - n :] = side == "left"
        text[i, :n] |= side == "right"
        ids[i, text[i]] = TEXT[i, :n]
    return ids, text


@torch.no_grad()
def alone(model) -> torch.Tensor:
    """The hidden states of each text by itself, without any padding."""
    texts = [TEXT[i : i + 1, :n] for i, n in enumerate(LENGTHS)]
    return torch.cat([supervised_hidden(model, ids, ids > 0) for ids in texts])


# xLSTM takes no mask, and RecurrentGemma's recurrence does not heed the one it takes.
@pytest.mark.parametrize("family", sorted(SERVED.keys() - {"xLSTM", "RecurrentGemma"}))
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_with_a_mask_padding_changes_nothing_on_either_side(family, side):
    model = build(family)
    ids, text = padded(side, token=5)  # one that no config knows

    hidden = supervised_hidden(model, ids, text, attention_mask=text)
    logits = supervised_logits(model, ids, text, attention_mask=text.long())

    torch.testing.assert_close(hidden, alone(model), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head_of(model).logits(hidden), logits)


def test_a_mask_that_a_model_would_swallow_is_refused():
    ids, text = padded("left", token=5)

    with pytest.raises(UserError, match="xLSTMForCausalLM: takes no attention_mask"):
        supervised_hidden(build("xLSTM"), ids, text, attention_mask=text)


@pytest.mark.parametrize("reach", [supervised_logits, supervised_hidden])
@pytest.mark.parametrize(
    ("known", "token"),
    [
        ({}, 0),
        ({"pad_token_id": 5}, 5),
        ({"pad_token_id": None}, 2),
        ({"pad_token_id": None, "eos_token_id": [2, 7]}, 7),
    ],
)
def test_padding_on_the_left_is_refused_without_a_mask(reach, known, token):
    model = build("Llama")
    for name, value in known.items():
        setattr(model.config, name, value)
    ids, text = padded("left", token)

    with pytest.raises(UserError, match=f"row 1 begins with the padding token {token}.*mask"):
        reach(model, ids, text)
    reach(model, *padded("right", token))  # where nothing looks
    reach(model, ids, text & torch.tensor([[True], [False], [False]]))  # what nobody asks for
    reach(model, ids, text, torch.ones_like(ids))  # text by the caller's word


@torch.no_grad()
def test_right_padding_needs_no_mask():
    model = build("Llama")

    hidden = supervised_hidden(model, *padded("right", token=0))

    torch.testing.assert_close(hidden, alone(model), rtol=1e-4, atol=1e-5)


def test_a_head_is_tried_on_tokens_that_are_no_padding():
    model = build("Llama")
    model.config.pad_token_id, model.config.eos_token_id = None, [0, 1, 2]

    assert head_of(model).logit_map is None


# What is left behind


@pytest.mark.parametrize("reach", [supervised_logits, supervised_hidden])
def test_the_hook_is_gone_afterwards(reach, tokens):
    model, (ids, supervised) = build("Llama"), tokens

    reach(model, ids, supervised)

    assert not model.get_output_embeddings()._forward_pre_hooks
    assert dense(model, ids).shape == (3, 7, 60)


@pytest.mark.parametrize("reach", [supervised_logits, supervised_hidden])
@pytest.mark.parametrize(("mistake", "error"), [("ids", IndexError), ("positions", ValueError)])
def test_the_hook_is_gone_after_an_exception(reach, mistake, error, tokens):
    model, (ids, supervised) = build("Llama"), tokens
    wrong = (ids + 60, supervised) if mistake == "ids" else (ids, supervised[:2])

    with pytest.raises(error):
        reach(model, *wrong)

    assert not model.get_output_embeddings()._forward_pre_hooks


def test_trying_a_head_leaves_nothing_behind():
    model = build("GPT2", resid_pdrop=0.5).train()
    model.transformer.h[0].eval()  # one frozen part of a model in training
    modes = [module.training for module in model.modules()]
    state, graphs = torch.get_rng_state(), []
    model.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))

    head_of(model)

    assert graphs == [False]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_trying_a_head_compiles_nothing():
    compiled, model = [], build("Llama")
    model.model.compile(backend=lambda graph, _: compiled.append(graph) or graph)

    head_of(model)

    assert compiled == []


def test_a_step_compiled_as_a_whole_is_the_step(tokens):
    def losses(wrap) -> list[float]:
        model = build("Qwen3")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def step():
            hidden = supervised_hidden(model, *tokens)
            loss = head_of(model).logits(hidden).logsumexp(1).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        step = wrap(step)
        return [step().item() for _ in range(3)]

    compiled = losses(lambda step: torch.compile(step, backend="eager"))

    assert compiled == pytest.approx(losses(lambda step: step), rel=1e-6)
    torch.compiler.reset()


def test_trying_a_head_changes_no_training_step(tokens):
    model, (ids, supervised) = build("GPT2", resid_pdrop=0.5).train(), tokens
    hidden = []
    for _ in range(2):  # tried in the first forward pass, known in the second
        torch.manual_seed(5)
        hidden.append(supervised_hidden(model, ids, supervised))

    assert torch.equal(*hidden)


def test_a_head_is_tried_once(tokens):
    model, passes = build("Gemma2"), []
    model.register_forward_hook(lambda *_: passes.append(1))

    supervised_hidden(model, *tokens)
    for _ in range(3):
        head_of(model)

    assert len(passes) == 1


def test_no_model_is_kept_alive():
    model = build("Llama")
    head_of(model)
    alive = weakref.ref(model.get_output_embeddings())

    del model
    gc.collect()

    assert alive() is None


# Refusals


class Normalised(nn.Linear):
    """As some heads do: no linear map of the hidden state, though a Linear by class."""

    def forward(self, hidden):
        return F.linear(F.normalize(hidden, dim=-1), self.weight)


class MaskedLlama(transformers.LlamaForCausalLM):
    """Forbids a token, as Chameleon does with those of images."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits[..., 7] = torch.finfo(out.logits.dtype).min
        return out


class FunctionalLlama(transformers.LlamaForCausalLM):
    """Multiplies by the head's weight without calling the head."""

    def forward(self, input_ids, **_):
        hidden = self.model(input_ids).last_hidden_state
        logits = F.linear(hidden, self.lm_head.weight)
        return transformers.modeling_outputs.CausalLMOutput(logits=logits)


def normalised_head():
    model = build("Llama")
    model.lm_head = Normalised(16, 60, bias=False)
    return model


def adapted_head():
    from peft import LoraConfig, get_peft_model

    return get_peft_model(build("Llama"), LoraConfig(target_modules=["lm_head", "q_proj"]))


def virtual_tokens():
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    return get_peft_model(build("Llama"), config)


def integer_head():
    model = build("Llama")
    model.lm_head.weight = nn.Parameter(torch.ones(60, 16, dtype=torch.int8), requires_grad=False)
    return model


def t5():
    config = transformers.T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=1)
    return transformers.T5ForConditionalGeneration(config)


REFUSED = {
    "no head": (lambda: transformers.LlamaModel(transformers.LlamaConfig(**SMALL)),
                "LlamaModel: no vocabulary projection"),
    "no Hugging Face model": (lambda: nn.Linear(2, 2), "Linear: no vocabulary projection"),
    "encoder and decoder": (t5, "T5ForConditionalGeneration: an encoder-decoder"),
    "adapted head": (adapted_head, "LlamaForCausalLM: its vocabulary projection is peft"),
    "virtual tokens": (virtual_tokens, "LlamaForCausalLM: projects .* for tokens"),
    "integer head": (integer_head, "LlamaForCausalLM: its vocabulary projection .*int8"),
    "another map": (normalised_head, "LlamaForCausalLM: its logits are not"),
    "masked logits": (lambda: MaskedLlama(transformers.LlamaConfig(**SMALL)),
                      "MaskedLlama: its logits are not"),
    "head not called": (lambda: FunctionalLlama(transformers.LlamaConfig(**SMALL)),
                        "FunctionalLlama: its forward calls the vocabulary projection 0 times"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_served_is_refused_by_name(case, tokens):
    make, words = REFUSED[case]
    model = make()

    for attempt in (lambda: head_of(model), lambda: supervised_hidden(model, *tokens)):
        with pytest.raises(UserError, match=words) as raised:
            attempt()
        assert "\n" not in str(raised.value)
        assert raised.value.hint


def test_a_head_replaced_after_it_was_tried_is_refused(tokens):
    model = build("Llama")
    head_of(model)
    model.lm_head = Normalised(16, 60, bias=False)

    with pytest.raises(UserError, match="its logits are not"):
        head_of(model)


def test_logits_that_cannot_be_restricted_can_still_be_had(tokens):
    model, (ids, supervised) = MaskedLlama(transformers.LlamaConfig(**SMALL)), tokens

    found = supervised_logits(model, ids, supervised)

    torch.testing.assert_close(found, dense(model, ids)[supervised])


# Wrappers


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ddp(model):
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def fsdp2(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("wrap", [ddp, fsdp2])
def test_wrapped_models_give_the_same_gradients_as_bare_ones(wrap, known, tokens, process_group):
    bare, wrapped = build("Gemma2"), wrap(build("Gemma2"))
    if known:
        head_of(wrapped)
    dense(bare, tokens[0])[tokens[1]].logsumexp(1).sum().backward()

    for _ in range(2):
        wrapped.zero_grad()
        hidden = supervised_hidden(wrapped, *tokens)
        head_of(wrapped).logits(hidden).logsumexp(1).sum().backward()
        for mine, theirs in zip(wrapped.parameters(), bare.parameters(), strict=True):
            whole = mine.grad.full_tensor() if wrap is fsdp2 else mine.grad
            torch.testing.assert_close(whole, theirs.grad)


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_head_is_refused_in_words(process_group):
    model = fsdp2(build("Llama"))
    head_of(model)
    model.reshard()

    with pytest.raises(UserError, match=r"sharded.*root's group.*supervised_hidden first"):
        head_of(model)
