"""A base out of a folder of the user's: what is refused, in one line, and what becomes of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lrmoclip import config
from lrmoclip.core.errors import UserError
from lrmoclip.models import local
from lrmoclip.models.shapes import shape_of, shape_of_model
from tests.conftest import TINY
from tests.support.made import load, run
from tests.support.tinylm import byte_tokenizer, random_model


@pytest.fixture
def folder(tmp_path) -> Path:
    """As a user's `save_pretrained` leaves it."""
    path = tmp_path / "my model"
    random_model().save_pretrained(path)
    byte_tokenizer(beginning=True).save_pretrained(path)
    return path


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        local.make(folder)
    [line] = str(raised.value).splitlines()
    assert line.startswith(f"{folder}: ")
    return line


def test_it_becomes_a_base_as_any_other(folder, edit, tiny_data, tmp_path):
    scale = edit(TINY, {"bases": {"mine": {"path": "my model"}}})
    out = tmp_path / "base"
    assert run("base", config=scale, base="mine", data=tiny_data, out=out) == 0

    model, tokenizer = load(out)
    for name, expected in random_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], expected), name
    assert tokenizer("the")["input_ids"] == byte_tokenizer(beginning=True)("the")["input_ids"]
    facts = json.loads((out / "manifest.json").read_text())
    assert list(facts["digests"]) == ["model.safetensors"] and len(facts["config"]) == 16


def test_its_shape_is_known_before_it_is_made(folder, edit):
    scale = config.load(edit(TINY, {"bases": {"mine": {"path": "my model"}}}))
    assert shape_of(scale.path, "mine", scale.base("mine")) == shape_of_model(random_model())


def test_no_folder(tmp_path):
    assert "no such folder. Mend bases.<name>.path" in refusal(tmp_path / "none")


def test_pickled_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin is a pickle, which may run code" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.safetensors", "no weights; needs *.safetensors"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer. Add it: one of tokenizer.json"),
    ],
)
def test_a_file_that_is_missing(folder, name, words):
    (folder / name).unlink()
    assert words in refusal(folder)


def test_code_of_its_own(folder):
    document = json.loads((folder / "config.json").read_text())
    document["auto_map"] = {"AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(document))
    assert "asks for code of its own (auto_map), which is never run" in refusal(folder)


def test_weights_that_do_not_fit_the_config(folder):
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "num_hidden_layers": 3}))
    assert "no weights for model.layers.2" in refusal(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows(folder):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<{n}>" for n in range(100)])
    tokenizer.save_pretrained(folder)
    assert f"its tokenizer has {len(tokenizer)} tokens, its model 300 rows" in refusal(folder)


def test_a_tokenizer_without_an_end(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            document = json.loads((folder / name).read_text())
            document.pop("eos_token", None)
            (folder / name).write_text(json.dumps(document))
    assert "no end of sequence" in refusal(folder)


def test_weights_cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert "not a readable checkpoint" in refusal(folder)


def test_no_model_at_all(folder):
    shutil.copy(folder / "tokenizer.json", folder / "config.json")
    assert "not a readable checkpoint" in refusal(folder)
