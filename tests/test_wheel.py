"""The base model out of a wheel. Tests of the real one skip where the wheel is not installed."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lrmoclip.config import scale as config
from lrmoclip.core.errors import UserError
from lrmoclip.models import wheel

SPEC = config.load(Path("workflow/config/smollm2.yaml")).base("smollm2-135m")


def installed(name: str) -> bool:
    try:
        return metadata.distribution(name) is not None
    except metadata.PackageNotFoundError:
        return False


needs_wheel = pytest.mark.skipif(
    not (installed(SPEC["wheel"]) and find_spec("gguf")),
    reason=f"the wheel {SPEC['wheel']} or the package gguf is not installed (make smollm2)",
)


def refusal(spec: dict) -> str:
    with pytest.raises(UserError) as raised:
        wheel.find(spec)
    assert "make smollm2" in str(raised.value)
    return str(raised.value)


def test_a_missing_wheel_is_named_with_how_to_install_it():
    assert "no-such-wheel is not installed" in refusal(SPEC | {"wheel": "no-such-wheel"})


def test_a_missing_reader_is_named(monkeypatch):
    monkeypatch.setattr(wheel, "find_spec", lambda name: None)
    assert "gguf" in refusal(SPEC | {"wheel": "tqdm"})


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(wheel, "find_spec", lambda name: True)
    assert "is version" in refusal(SPEC | {"wheel": "tqdm", "version": "0"})


def test_a_wheel_without_weights_is_refused(monkeypatch):
    monkeypatch.setattr(wheel, "find_spec", lambda name: True)
    version = metadata.version("tqdm")
    assert "carries 0 GGUF files" in refusal({"wheel": "tqdm", "version": version, "sha256": ""})


@needs_wheel
def test_other_weights_are_refused():
    assert "checksum" in refusal(SPEC | {"sha256": "0" * 64})


@pytest.fixture(scope="module")
def converted():
    return wheel.convert(SPEC)


@needs_wheel
def test_the_model_is_the_one_that_the_config_names(converted):
    model, tokenizer, facts = converted
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.dtype == torch.float32 and len(tokenizer) == model.config.vocab_size == 49_152
    assert facts["quantisation"] == {"F32": 61, "Q4_1": 210, "Q8_0": 1}
    assert "Paris" in facts["greedy"] and 10 < facts["perplexity"] < 100


@needs_wheel
def test_weights_are_those_that_the_format_s_own_library_reads(converted):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    model, _, _ = converted
    tensors = {tensor.name: tensor for tensor in GGUFReader(wheel.find(SPEC)).tensors}
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "blk.7.ffn_up.weight": "model.layers.7.mlp.up_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for name, ours in names.items():
        theirs = torch.from_numpy(dequantize(tensors[name].data, tensors[name].tensor_type))
        assert torch.equal(model.get_parameter(ours), theirs), name


@needs_wheel
def test_a_conversation_and_plain_text_survive_the_tokenizer(converted):
    _, tokenizer, _ = converted
    text = "In Release 18, what does 3GPP call a UE's 'NSSAI'?\n\tSELECT COUNT(*) FROM a;"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text and tokenizer.bos_token_id not in ids
    turns = [{"role": "user", "content": "Hello"}]
    chat = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert chat.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@needs_wheel
def test_a_model_that_was_read_wrongly_is_refused(converted):
    model, tokenizer, _ = converted
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    noise = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(UserError, match="not sane: perplexity"):
        wheel.sanity(noise, tokenizer)
