"""Fetching from a hub of our own on localhost: what is locked is what was there; a run refuses what
differs; every mistake is one line and leaves nothing."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, T5Config

from lrmoclip.cli.main import main
from lrmoclip.config import scale as config
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data.published import sources
from lrmoclip.models import fetching, hub
from tests.support import ROOT
from tests.support.fakehub import TOKEN, FakeHub, Repo

PAPER = ROOT / "workflow" / "config" / "paper.yaml"
MODEL, DATA = "lab/tiny", "lab/questions"
SHAPE = {
    "model_type": "qwen3", "vocab_size": 40, "hidden_size": 8, "intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "tie_word_embeddings": True,
}  # fmt: skip
CARD = b"""---
configs:
- config_name: easy
  data_files: [{split: test, path: easy/test.jsonl}]
- config_name: hard
  data_files: [{split: test, path: hard/test.jsonl}]
---
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> dict[str, bytes]:
    """Files of a random bfloat16 Qwen3 in several shards, and what else a repository may hold."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE), dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="1KB")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1").save_pretrained(folder)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sum(name.endswith(".safetensors") for name in found) > 1
    unwanted = ("pytorch_model.bin", "modeling_tiny.py", "onnx/model.json", "training_args.bin")
    return found | dict.fromkeys(unwanted, b"never")


@pytest.fixture
def server(checkpoint, monkeypatch, tmp_path):
    """The fake hub with a model and a data set, and the client turned to it."""
    from huggingface_hub import constants

    served = FakeHub()
    served.repos = {("models", MODEL): Repo(), ("datasets", DATA): Repo()}
    served.repos["models", MODEL].add(checkpoint)
    rows = {part: json.dumps({"q": f"{part} \u2028 question"}) + "\n" for part in ("easy", "hard")}
    tables = {f"{part}/test.jsonl": row.encode() for part, row in rows.items()}
    served.repos["datasets", DATA].add({"README.md": CARD, "load.py": b"never", **tables})
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def scale(edit):
    """`scale(changes)`: the config of the paper's scale, turned to the fake hub."""

    def written(changes: dict | None = None) -> config.Scale:
        tiny = {"hub": MODEL, "revision": "main", "architecture": {**SHAPE}}
        kept = {"bases": {"tiny": tiny}}
        kept["data/repositories"] = {"mmlu": {"hub": DATA, "revision": "main"}}
        return config.load(edit(PAPER, {**kept, **(changes or {})}))

    return written


@pytest.fixture
def fetched(server, scale) -> hub.Lock:
    return fetching.fetch(scale())


def snapshot_files(lock: hub.Lock, repo: str) -> dict[str, bytes]:
    folder = hub.snapshot(lock, repo)
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_fetch_locks_what_it_downloaded(server, fetched, checkpoint):
    kept = {n: b for n, b in checkpoint.items() if b != b"never"}
    assert snapshot_files(fetched, MODEL) == kept
    assert set(snapshot_files(fetched, DATA)) == {"README.md", "easy/test.jsonl", "hard/test.jsonl"}
    locked = json.loads(fetched.path.read_text())["repositories"]
    assert locked[MODEL]["revision"] == server.repos["models", MODEL].commit("main")
    assert (locked[MODEL]["asked"], locked[DATA]["kind"]) == ("main", "dataset")
    assert locked[MODEL]["files"] == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(kept.items())
    }


def test_nothing_that_could_run_is_downloaded(server, fetched):
    assert not {n for n in server.downloads if n.endswith((".bin", ".py"))}
    assert server.downloads.count("config.json") == 1


def test_a_second_fetch_downloads_nothing_and_changes_nothing(server, fetched, scale):
    before = fetched.path.read_bytes()
    server.downloads.clear()
    assert fetching.fetch(scale()) == fetched
    assert not server.downloads and fetched.path.read_bytes() == before


def test_a_second_fetch_brings_only_what_lacks_or_was_damaged(server, fetched, scale):
    folder = hub.snapshot(fetched, MODEL)
    shards = sorted(folder.glob("*.safetensors"))
    shards[0].resolve().unlink()
    shards[1].resolve().write_bytes(b"damaged")
    server.downloads.clear()
    fetching.fetch(scale())
    assert sorted(server.downloads) == [shards[0].name, shards[1].name]
    assert hub.verify(fetched, MODEL) == folder


def test_a_branch_that_moves_on_leaves_the_locked_commit(server, fetched, scale, checkpoint):
    server.repos["models", MODEL].add({**checkpoint, "config.json": b"{}"})
    assert fetching.fetch(scale()) == fetched


def test_another_revision_in_the_config_is_refused_until_it_is_fetched(server, fetched, scale):
    first = server.repos["datasets", DATA].commit("main")
    pinned = scale({"data/repositories": {"mmlu": {"hub": DATA, "revision": first}}})
    with pytest.raises(UserError, match=f"{DATA} at {first}, but fetched was main.*lrmoclip fetch"):
        hub.read_lock(pinned)
    assert fetching.fetch(pinned).entry(DATA)["asked"] == first
    assert hub.read_lock(pinned).entry(DATA)["revision"] == first


def test_a_fetch_into_another_cache_is_read_from_there(server, scale, tmp_path):
    lock = fetching.fetch(scale(), tmp_path / "other")
    assert hub.verify(lock, MODEL, tmp_path / "other").is_dir()
    with pytest.raises(UserError, match="not in the cache"):
        hub.verify(lock, MODEL)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_single_flipped_bit_is_named(fetched, data):
    repo = data.draw(st.sampled_from([MODEL, DATA]))
    name = data.draw(st.sampled_from(sorted(fetched.entry(repo)["files"])))
    path = (hub.snapshot(fetched, repo) / name).resolve()
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
    with pytest.raises(UserError, match=re.escape(f"{name}: its hash differs")):
        hub.verify(fetched, repo)
    path.write_bytes(whole)
    hub.verify(fetched, repo)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_missing_file_is_named(fetched, name):
    (hub.snapshot(fetched, MODEL) / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing.*lrmoclip fetch --config"):
        hub.verify(fetched, MODEL)


def test_a_base_is_the_hubs_model_in_float32_without_a_network(server, fetched, scale, checkpoint):
    server.shutdown()
    server.server_close()
    model, tokenizer, facts = hub.make(scale(), scale().base("tiny"))
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE), dtype=torch.bfloat16)
    for (name, expected), found in zip(made.named_parameters(), model.parameters(), strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, expected.float()), name
    assert tokenizer("w3 w7")["input_ids"] == [3, 7]
    assert facts == {"hub": MODEL, "revision": fetched.entry(MODEL)["revision"]}


def test_a_data_set_is_read_from_its_folder_offline(server, fetched, scale, monkeypatch):
    server.shutdown()
    server.server_close()
    hashed = []
    real = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: (hashed.append(path.name), real(path))[1])
    pins = {"mmlu": {"repo": DATA, "revision": "main", "name": "{split}", "split": "test"}}
    source = sources.Hub(pins, hub.snapshots(scale()))
    for part in ("hard", "easy"):
        read = source.records("mmlu", part, {"q": str}, lambda row, number: row)
        assert read == [{"q": f"{part} \u2028 question"}]
    assert len(hashed) == len(fetched.entry(DATA)["files"])  # once, not once a split


def another_family(server, checkpoint, tmp_path) -> None:
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(tmp_path / "t5")
    config_file = {"config.json": (tmp_path / "t5" / "config.json").read_bytes()}
    server.repos["models", MODEL].add({**checkpoint, **config_file})


def gate(server, *_) -> None:
    server.repos["datasets", DATA].gated = True


def close(server, *_) -> None:
    server.shutdown()
    server.server_close()


GONE = {"data/repositories": {"mmlu": {"hub": DATA, "revision": "0" * 40}}}
UNKNOWN = {"data/repositories": {"mmlu": {"hub": "lab/unknown", "revision": "main"}}}
NARROW = {"bases/tiny/architecture/hidden_size": 16}
NO_FILES = {"data/repositories": {"mmlu": {"hub": "lab/empty", "revision": "main"}}}
MISTAKES = {
    "out of reach": (close, {}, r"lab/tiny: http\S+ is out of reach .*connected machine"),
    "unknown": (None, UNKNOWN, r"lab/unknown: no such dataset .*/datasets/lab/unknown"),
    "vanished": (None, GONE, rf"{DATA}: the hub has no revision 0000.*commits/main"),
    "gated": (gate, {}, rf"{DATA}: gated. Accept its terms at \S+/datasets/{DATA}, .*HF_TOKEN"),
    "family": (another_family, {}, r"bases.tiny.hub: .* T5ForConditionalGeneration.* causal LM"),
    "shape": (None, NARROW, r"bases.tiny.architecture.hidden_size: 16, but lab/tiny has 8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_downloaded(
    server, scale, checkpoint, tmp_path, mistake
):
    prepare, changes, words = MISTAKES[mistake]
    if prepare:
        prepare(server, checkpoint, tmp_path)
    asked = scale(changes)
    with pytest.raises(UserError, match=words) as caught:
        fetching.fetch(asked)
    assert "\n" not in str(caught.value)
    assert set(server.downloads) <= {"config.json"}
    assert not hub.lock_path(asked.path).exists()


def test_a_repository_without_a_usable_file_is_named(server, scale):
    server.repos["datasets", "lab/empty"] = Repo()
    server.repos["datasets", "lab/empty"].add({"load.py": b"never", "data.zip": b"never"})
    with pytest.raises(UserError, match=r"lab/empty at main: no file that can be used.*parquet"):
        fetching.fetch(scale(NO_FILES))


def test_a_gated_set_is_fetched_with_a_token_that_may(server, scale, monkeypatch):
    server.repos["datasets", DATA].gated = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "README.md" in snapshot_files(fetching.fetch(scale()), DATA)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # the client's own
def test_too_small_a_disk_is_said_before_the_download(server, scale, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(UserError, match=r"cache: no room for (\d+) bytes .* 100 are free.*--cache"):
        fetching.fetch(scale())
    assert set(server.downloads) <= {"config.json"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_disk_that_fills_up_is_one_line_and_leaves_no_lock(server, scale, monkeypatch, wrapped):
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def filling(repo, **options):
        if options["allow_patterns"] == ["config.json"]:
            return real(repo, **options)
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if wrapped:
            raise huggingface_hub.errors.XetDownloadError("failed") from full
        raise full

    monkeypatch.setattr(huggingface_hub, "snapshot_download", filling)
    asked = scale()
    with pytest.raises(UserError, match=r"cache: no room for \d+ bytes .*the disk is full"):
        fetching.fetch(asked)
    assert not hub.lock_path(asked.path).exists()


def test_a_fetch_that_fails_leaves_the_older_lock(server, fetched, scale, checkpoint):
    before = fetched.path.read_bytes()
    shutil.rmtree(hub.snapshot(fetched, DATA).parents[1])
    gate(server)
    with pytest.raises(UserError, match="gated"):
        fetching.fetch(scale())
    assert fetched.path.read_bytes() == before
    assert not list(fetched.path.parent.glob(".*.tmp"))


def test_a_commit_that_vanished_after_it_was_locked_is_named(server, fetched, scale, checkpoint):
    shutil.rmtree(hub.snapshot(fetched, MODEL).parents[1])
    server.repos["models", MODEL] = Repo()
    server.repos["models", MODEL].add({**checkpoint, "config.json": b"{}"})
    gone = fetched.entry(MODEL)["revision"]
    with pytest.raises(UserError, match=f"{MODEL}: the hub has no revision {gone}"):
        fetching.fetch(scale())


def test_a_hub_that_sends_other_bytes_than_it_lists_is_refused(server, scale, monkeypatch):
    from tests.support import fakehub

    real = fakehub.Handler._entry

    def lying(self, name: str, content: bytes) -> dict:
        entry = real(self, name, content)
        if "lfs" in entry:
            entry["lfs"]["sha256"] = entry["lfs"]["oid"] = "0" * 64
        return entry

    monkeypatch.setattr(fakehub.Handler, "_entry", lying)
    asked = scale()
    with pytest.raises(UserError, match=r"safetensors: its hash is [0-9a-f]{64}, not 0{64}"):
        fetching.fetch(asked)
    assert not hub.lock_path(asked.path).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"paper.lock.json: nothing was fetched yet. On a connected machine: lrmoclip fetch"),
        ("{", r"paper.lock.json, line 1: not JSON"),
        ('{"repositories": {}}', "paper.lock.json: made by another version"),
    ],
)
def test_a_run_without_a_lock_says_so(scale, text, words):
    asked = scale()
    if text is not None:
        hub.lock_path(asked.path).write_text(text)
    with pytest.raises(UserError, match=words):
        hub.read_lock(asked)


def test_a_scale_with_nothing_on_the_hub_has_nothing_to_fetch(server, scale):
    with pytest.raises(UserError, match="names nothing on the hub"):
        fetching.fetch(config.load(PAPER.with_name("micro.yaml")))


def test_a_cache_that_cannot_be_made_is_named(server, scale, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/cache: cannot be written .*--cache"):
        fetching.fetch(scale(), tmp_path / "file" / "cache")


def test_the_command_fetches_while_all_others_stay_offline(server, scale, tmp_path):
    path = scale().path
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "lrmoclip"]

    def said(*words) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *map(str, words)], env=environment, capture_output=True, text=True
        )

    done = said("fetch", "--config", path)
    assert done.returncode == 0, done.stderr
    assert f"Locked: {hub.lock_path(path)}" in done.stdout
    asked = len(server.downloads)
    out = tmp_path / "base"
    after = said("base", "--config", path, "--base", "tiny", "--data", tmp_path, "--out", out)
    assert after.returncode == 0, after.stderr
    assert (out / "model.safetensors").exists() and len(server.downloads) == asked


def test_a_base_that_was_not_fetched_is_one_line(scale, tmp_path, capsys):
    options = ["--base", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / "base")]
    assert main(["base", "--config", str(scale().path), *options]) == 2
    assert "nothing was fetched yet" in capsys.readouterr().err
    assert not (tmp_path / "base").exists()


def test_the_scale_may_be_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "--scale", "paper"]) == 2
    assert "workflow/config/paper.yaml: no such file" in capsys.readouterr().err


def test_offline_is_said(scale, monkeypatch):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetching.fetch(scale())
