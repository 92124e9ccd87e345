"""What the scale `paper` runs, on two layers of random weights: Qwen3 with its real vocabulary and
chat format goes through Stage 0, trains, dies and goes on, is saved and evaluated."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from lrmoclip.cli import main as cli
from lrmoclip.config import load
from lrmoclip.core import files
from lrmoclip.models import bases, checkpoints
from lrmoclip.models.checkpoints import WEIGHTS
from lrmoclip.models.scratch import new_model
from lrmoclip.train.run import Run
from tests.conftest import TINY
from tests.data.test_batches import TEMPLATE
from tests.support.made import as_checkpoint, as_data, read_lines

# A random base is cold; that it is said is a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:telecom")

VOCABULARY, WORDS = 151_936, 151_643  # rows of the embedding, and tokens before the marks of a turn
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
BASE = {
    "family": "qwen3", "seed": 0, "vocabulary": VOCABULARY, "hidden": 64, "intermediate": 96,
    "layers": 2, "heads": 2, "steps": 1, "batch_size": 1, "lr": 1e-3,
}  # fmt: skip
CHANGES = {
    "bases": {"qwen3-s0": BASE},
    "domains": {"telecom": {"task": "telecom", "kind": "choice", "metric": "acc"}},
    "general": {"mmlu": {"task": "micro_mmlu", "kind": "choice", "metric": "acc", "chance": 0.25}},
    "precision": "bfloat16",
    "prompting": {"chat_template": True, "thinking": False},
    "stage1/epochs": 1,
    "stage1/batch_size": 4,
    "stage1/micro_batch": 2,
    "stage1/gradient_checkpointing": True,
    "stage1/length_buckets": True,
    "stage1/checkpoint_steps": 2,
}


def tokenizer():
    """Bytes as tokens, and ids up to those of Qwen3's own marks, which end its 151,646 tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    unused = [f"unused{i}" for i in range(WORDS - len(alphabet))]
    # The bytes have the highest ids, where an id takes the most bits.
    words = {word: i for i, word in enumerate([*unused, *alphabet])}
    backend = Tokenizer(models.BPE(words, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def given(tmp_path_factory, tiny_data) -> dict:
    """A base, 24 records of the domain, a few items to score, and the config that joins them."""
    folder = tmp_path_factory.mktemp("qwen3")
    scale_file = folder / "tiny.yaml"
    document = yaml.safe_load(TINY.read_text())
    for key in ("methods_file", "learning_rates"):
        document[key] = str((TINY.parent / document[key]).resolve())
    for key, value in CHANGES.items():
        *parents, last = key.split("/")
        (document[parents[0]] if parents else document)[last] = value
    scale_file.write_text(json.dumps(document))  # which is YAML, too
    data = folder / "data"
    for name, split, count in (
        ("telecom", "train", 24), ("replay", "train", 4), ("telecom", "test", 2),
        ("micro_mmlu", "test", 2), ("held_out", "test", 2), ("telecom", "validation", 2),
    ):  # fmt: skip
        records = read_lines(tiny_data / name / f"{split}.jsonl")[:count]
        files.write_jsonl(data / name / f"{split}.jsonl", records)
    marked = tokenizer()
    as_data(data)
    scale = load(scale_file)
    checkpoints.save(folder / "base", new_model(scale.base("qwen3-s0"), marked), marked)
    as_checkpoint(folder / "base", config=bases.identity(scale, "qwen3-s0"))
    return {
        "config": scale_file, "base": "qwen3-s0", "domain": "telecom",
        "checkpoint": folder / "base", "data": data,
    }  # fmt: skip


@pytest.fixture(scope="module")
def store(given) -> Path:
    folder = given["checkpoint"].with_name("stage0")
    assert run("stage0", **given, out=folder) == 0
    return folder


def run(command: str, **options) -> int:
    return cli.main([command, *(w for k, v in options.items() for w in (f"--{k}", str(v)))])


def test_the_marks_have_the_ids_of_qwen3s():
    assert tokenizer().convert_tokens_to_ids(MARKS) == [151_643, 151_644, 151_645]


def test_a_store_of_its_chats_is_bound_to_the_prompting(given, store, tmp_path, capsys):
    plain = json.loads(given["config"].read_text())
    plain["prompting"] = {"chat_template": False}
    other = tmp_path / "plain.yaml"
    other.write_text(json.dumps(plain))
    options = {**given, "method": "lr_moclip", "store": store, "seeds": 1, "outs": tmp_path / "out"}

    assert run("train", **{**options, "config": other}) == 2

    assert "data file" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["full_ft", "lr_moclip"])
def test_it_trains_dies_goes_on_and_is_scored(given, store, tmp_path, monkeypatch, method):
    out, step = tmp_path / "seed1", Run.step
    options = {**given, "method": method, "store": store, "seeds": 1, "outs": out}

    def dies_in_the_fourth(run) -> dict:
        if run.taken == 3:
            raise KeyboardInterrupt
        return step(run)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "step", dies_in_the_fourth)
        run("train", **options)
    assert [p.name for p in tmp_path.iterdir()] == [".seed1.partial"]

    assert run("train", **options) == 0
    undisturbed = tmp_path / "undisturbed"
    assert run("train", **{**options, "outs": undisturbed}) == 0

    found, same = (load_file(o / "model" / WEIGHTS) for o in (out, undisturbed))
    base = load_file(given["checkpoint"] / WEIGHTS)
    assert all(torch.equal(found[name], same[name]) for name in same)
    changed = found["model.embed_tokens.weight"] != base["model.embed_tokens.weight"]
    assert changed[WORDS + 2].any()  # <|im_end|>, which ends every answer
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert json.loads((out / "run.json").read_text())["steps"] == 6

    shutil.copytree(out / "model", tmp_path / "model")
    scored = {key: given[key] for key in ("config", "base", "domain", "data")}
    models = {"models": tmp_path / "model", "seeds": 1, "outs": out}
    assert run("evaluate", **scored, method=method, **models) == 0
    rows = json.loads((out / "metrics.json").read_text())["rows"]
    assert {row["benchmark"] for row in rows} == {"telecom", "micro_mmlu"}


def test_a_store_holds_ids_of_the_whole_vocabulary(store):
    manifest = json.loads((store / "manifest.json").read_text())
    with safe_open(store / manifest["shards"][0]["file"], "pt") as shard:
        assert manifest["vocabulary"] == VOCABULARY and list(shard.keys())
