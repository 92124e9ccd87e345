"""The base model out of wheels. Tests of the real one skip where it is not installed; others make
wheels of their own, installed in a folder."""

import hashlib
import importlib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from lrmoclip.config import load
from lrmoclip.config.parts import Wheel
from lrmoclip.core import artefacts
from lrmoclip.core.errors import UserError
from lrmoclip.models import checkpoints, wheel
from lrmoclip.models.sanity import sanity

SPEC = load(Path("workflow/config/smollm2.yaml")).base("smollm2-135m")


def installed(name: str) -> bool:
    try:
        return metadata.distribution(name) is not None
    except metadata.PackageNotFoundError:
        return False


needs_wheel = pytest.mark.skipif(
    not (installed(SPEC.wheel) and installed("gguf")),
    reason=f"the wheel {SPEC.wheel} or the package gguf is not installed (make smollm2)",
)


DATA = bytes(range(256)) * 40


@pytest.fixture
def install(tmp_path, monkeypatch):
    """`install(name, files, requires)`: a distribution, version 1.0, with these files."""
    monkeypatch.syspath_prepend(tmp_path)

    def installed(name: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> None:
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "RECORD").write_text("".join(f"{name}/{file},,\n" for file in files))
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
        importlib.invalidate_caches()

    installed("gguf", {})
    return installed


def spec(name: str, content: bytes = DATA) -> Wheel:
    return Wheel(wheel=name, version="1.0", sha256=hashlib.sha256(content).hexdigest())


def refusal(asked: Wheel) -> str:
    with pytest.raises(UserError) as raised, wheel.weights(asked):
        pass
    assert "make smollm2, or .venv/bin/pip install --no-deps" in str(raised.value)
    return str(raised.value)


def test_one_file(install):
    install("whole", {"model.gguf": DATA, "notes.txt": b""})
    with wheel.weights(spec("whole")) as path:
        assert path.name == "model.gguf" and path.read_bytes() == DATA


def test_parts_in_wheels_of_their_own_are_put_together_in_order(install):
    pieces = [DATA[start : start + 1000] for start in range(0, len(DATA), 1000)]
    assert len(pieces) > 10  # so that their order is not that of their names
    for number, piece in enumerate(pieces):
        install(f"part-{number}", {f"data/m.gguf.part{number}": piece})
    requires = tuple(f"part-{n}==1.0" for n in reversed(range(len(pieces))))
    install("parts", {}, (*requires, "some-runtime>=2"))
    with wheel.weights(spec("parts")) as path:
        assert path.name == "m.gguf" and path.read_bytes() == DATA
    assert not path.exists()


def test_what_is_missing_or_another_is_named(install):
    assert "no-such-wheel, the config's base, is not installed" in refusal(spec("no-such-wheel"))
    install("whole", {"model.gguf": DATA})
    other = spec("whole").model_copy(update={"version": "2.0"})
    assert "whole, the config's base, is version 1.0, not 2.0" in refusal(other)
    assert "model.gguf of the wheel whole: its checksum" in refusal(spec("whole", b"other"))
    install("without", {"code.py": b""})
    assert "without carries 0 GGUF files and 0 parts" in refusal(spec("without"))
    install("two", {"a.gguf": DATA, "b.gguf": DATA})
    assert "two carries 2 GGUF files and 0 parts" in refusal(spec("two"))


def test_a_part_that_is_missing_is_named(install):
    install("one", {"m.gguf.part0": DATA[:9]})
    install("three", {"m.gguf.part2": DATA[9:]})
    install("gap", {}, ("one==1.0", "three==1.0"))
    assert "0 GGUF files and 2 parts" in refusal(spec("gap"))
    install("asks", {}, ("one==1.0", "nowhere==1.0"))
    assert "nowhere, a part of asks, is not installed" in refusal(spec("asks"))


def test_a_missing_reader_is_named(monkeypatch):
    monkeypatch.setattr(wheel, "READER", "no-such-reader")
    assert "no-such-reader, which reads it, is not installed" in refusal(SPEC)


@pytest.fixture(scope="module")
def converted():
    return wheel.make(SPEC)


@needs_wheel
def test_the_model_is_the_one_that_the_config_names(converted):
    model, tokenizer, facts = converted
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.dtype == torch.float32 and len(tokenizer) == model.config.vocab_size == 49_152
    assert facts["quantisation"] == {"F32": 61, "Q4_1": 210, "Q8_0": 1}
    assert "Paris" in facts["greedy"] and 10 < facts["perplexity"] < 100


@needs_wheel
def test_a_base_of_it_can_be_read_again(converted, tmp_path):
    """What the command `base` writes of it, its manifest included."""
    model, tokenizer, facts = converted
    with artefacts.folder(tmp_path / "base", checkpoints.KIND) as made:
        checkpoints.save(made.path, model, tokenizer)
        made.about |= facts

    folder = checkpoints.folder(tmp_path / "base")

    assert folder.about["gguf_sha256"] == SPEC.sha256
    assert len(checkpoints.load_tokenizer(folder)) == model.config.vocab_size


@needs_wheel
def test_weights_are_those_that_the_format_s_own_library_reads(converted):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    model, _, _ = converted
    [path] = wheel._carried(SPEC)
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
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
        sanity(noise, tokenizer)
