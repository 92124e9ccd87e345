"""The vocabulary projection, reached through the model's own forward, or refused by name."""

import pytest
import torch
import transformers

from lrmoclip.errors import UserError
from lrmoclip.heads import head_parameters, supervised_hidden, supervised_logits

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
SERVED = {
    "Llama": SMALL,
    "Qwen3": SMALL | {"tie_word_embeddings": True},
    "GPT2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
             "bos_token_id": 1, "eos_token_id": 2},
    "Phi": SMALL,  # its projection has a bias
    "Granite": SMALL | {"logits_scaling": 1.0},  # scales by nothing
    "Gemma2": SMALL | {"final_logit_softcapping": None},
}  # fmt: skip
REFUSED = {
    "Gemma2": (SMALL | {"final_logit_softcapping": 0.01}, "final_logit_softcapping"),
    "Cohere": (SMALL, "logit_scale"),
    "Granite": (SMALL | {"logits_scaling": 8.0}, "logits_scaling"),
    "FalconH1": (
        SMALL | {"lm_head_multiplier": 0.5, "mamba_d_ssm": 16, "mamba_n_heads": 2,
                 "mamba_d_head": 8, "mamba_d_state": 4},
        "lm_head_multiplier",
    ),
    "RecurrentGemma": (
        SMALL | {"lru_width": 16, "attention_window_size": 8, "logits_soft_cap": 0.01},
        "logits_soft_cap",
    ),
    "xLSTM": (
        {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_heads": 2,
         "output_logit_soft_cap": 0.01},
        "output_logit_soft_cap",
    ),
}  # fmt: skip


def build(family: str, settings: dict):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model


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
    model, (ids, supervised) = build(family, SERVED[family]), tokens

    found = supervised_logits(model, ids, supervised)

    assert found.shape == (4, 60)
    torch.testing.assert_close(found, model(input_ids=ids).logits[supervised])


@torch.no_grad()
def test_supervised_logits_keep_what_the_model_does_to_them(tokens):
    model, (ids, supervised) = build("Gemma2", SMALL | {"final_logit_softcapping": 0.01}), tokens

    found = supervised_logits(model, ids, supervised)

    torch.testing.assert_close(found, model(input_ids=ids).logits[supervised])
    assert found.abs().max() <= 0.01


@pytest.mark.parametrize("family", SERVED)
@torch.no_grad()
def test_hidden_states_times_the_head_are_the_models_logits(family, tokens):
    model, (ids, supervised) = build(family, SERVED[family]), tokens

    hidden = supervised_hidden(model, ids, supervised)
    weight, bias = head_parameters(model)

    logits = hidden @ weight.T + (0 if bias is None else bias)
    torch.testing.assert_close(logits, model(input_ids=ids).logits[supervised])
    assert (bias is not None) == (family == "Phi")


def test_gradients_reach_the_body_through_hidden_states(tokens):
    model, (ids, supervised) = build("Qwen3", SERVED["Qwen3"]), tokens

    supervised_hidden(model, ids, supervised).sum().backward()

    assert all(p.grad is not None and p.grad.any() for p in model.model.layers[0].parameters())


@pytest.mark.parametrize("reach", [supervised_logits, supervised_hidden])
def test_the_hook_is_gone_afterwards(reach, tokens):
    model, (ids, supervised) = build("Llama", SMALL), tokens

    reach(model, ids, supervised)

    assert not model.get_output_embeddings()._forward_pre_hooks
    assert model(input_ids=ids).logits.shape == (3, 7, 60)


@pytest.mark.parametrize("reach", [supervised_logits, supervised_hidden])
@pytest.mark.parametrize("mistake", ["ids", "positions"])
def test_the_hook_is_gone_after_an_exception(reach, mistake, tokens):
    model, (ids, supervised) = build("Llama", SMALL), tokens
    wrong = (ids + 60, supervised) if mistake == "ids" else (ids, supervised[:2])

    with pytest.raises(IndexError):
        reach(model, *wrong)

    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("family", REFUSED)
def test_a_model_that_maps_its_logits_is_refused_by_name(family, tokens):
    settings, key = REFUSED[family]
    model, (ids, supervised) = build(family, settings), tokens

    # What would be missed, were it not refused:
    with torch.no_grad():
        plain = model.get_output_embeddings()(supervised_hidden(model, ids, supervised))
        logits = model(input_ids=ids, use_cache=False).logits[supervised]
        assert not torch.allclose(plain, logits, rtol=1e-2)
    with pytest.raises(UserError, match=f"{family}ForCausalLM: maps its logits.*{key}") as raised:
        head_parameters(model)

    assert "\n" not in str(raised.value) and "Use a family" in str(raised.value)


def test_a_model_without_a_projection_is_refused_by_name():
    model = transformers.LlamaModel(transformers.LlamaConfig(**SMALL))

    with pytest.raises(UserError, match="LlamaModel: no linear vocabulary projection"):
        head_parameters(model)
