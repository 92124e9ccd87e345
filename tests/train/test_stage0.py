"""Stage 0: the model's own sets, streamed in bounded memory, and to the same bytes if killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lrmoclip import CandidateStore, StoreWriter, select_candidates
from lrmoclip.config.parts import Stage0
from lrmoclip.core.heads import head_of
from lrmoclip.core.store import shard_name
from lrmoclip.data.batches import Encoded
from lrmoclip.train import stage0
from tests.conftest import TINY, Allocations
from tests.support.runs import make_model, make_records

BOUND = {"base": "b", "tokenizer": "t", "data": "d"}
LIMITS = {"coverage": 0.9, "k_min": 1, "k_max": 5}
SETTINGS = Stage0(**LIMITS, batch_size=8)


def collect(folder: Path, model, data: Encoded, shard_positions: int = 2**15) -> CandidateStore:
    vocabulary = model.config.vocab_size
    settings = SETTINGS.model_dump()
    with StoreWriter(
        folder, BOUND, vocabulary=vocabulary, settings=settings, shard_positions=shard_positions
    ) as writer:
        stage0.collect(model, data, SETTINGS, writer)
    return CandidateStore.load(folder, BOUND)


def test_sets_are_those_of_the_models_own_dense_logits(tmp_path):
    model, data = make_model().eval(), make_records()
    store = collect(tmp_path / "store", model, data)

    for i, ids in enumerate(data.ids):
        with torch.no_grad():
            logits = model(ids[None, :-1]).logits[0]
        start = data.prompt_lengths[i]
        want = select_candidates(logits[start - 1 :], ids[start:], **LIMITS)
        got = store.batch([i])
        assert got.ids.tolist() == want.ids.tolist()
        assert got.sizes.tolist() == want.sizes.tolist()
        torch.testing.assert_close(got.log_outside, want.log_outside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 70, 150, 10**6])
def test_positions_projected_some_at_a_time_give_the_same_sets(monkeypatch, chunk):
    model, data = make_model().eval(), make_records()
    want, gold = stage0.collect_batch(model, data, 0, SETTINGS)
    monkeypatch.setattr(stage0, "LOGITS", chunk)

    got, same = stage0.collect_batch(model, data, 0, SETTINGS)

    assert torch.equal(same, gold) and torch.equal(got.ids, want.ids)
    torch.testing.assert_close(got.logp, want.logp)


def test_the_largest_tensor_is_a_chunk_whatever_a_batch_supervises(monkeypatch, tmp_path):
    vocabulary, rows = 4096, 3
    monkeypatch.setattr(stage0, "LOGITS", rows * vocabulary)
    model = make_model(vocabulary, 2).eval()
    head_of(model)
    largest = {}
    for records in (8, 64):
        data = make_records(records, vocabulary)
        with Allocations() as seen:
            stage0.collect_batch(model, data, 0, Stage0(**LIMITS, batch_size=records))
        assert len(data.gold) > rows * 4
        largest[records] = seen.numel
    assert largest == {8: rows * vocabulary, 64: rows * vocabulary}


def test_nothing_held_grows_with_the_records(tmp_path):
    model = make_model().eval()
    head_of(model)
    peak = {}
    for records in (64, 512):
        data, folder = make_records(records), tmp_path / f"{records}"
        with Allocations() as seen:
            store = collect(folder, model, data, shard_positions=50)
        assert len(store.manifest["shards"]) > 2
        peak[records] = seen.peak
    # 8 bytes say how many positions a record supervises, and it has more than two of them.
    assert peak[512] - peak[64] < 16 * (512 - 64)


def test_only_supervised_positions_are_projected(tmp_path):
    vocabulary = 997  # of no other shape
    model, data = make_model(vocabulary).eval(), make_records(vocabulary=vocabulary)
    head_of(model)
    projected = []

    class Projections(Allocations):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = super().__torch_dispatch__(function, types, args, kwargs)
            if function.name() in ("aten::mm", "aten::addmm") and out.shape[-1] == vocabulary:
                projected.append(len(out))
            return out

    with Projections():
        collect(tmp_path / "store", model, data)

    assert sum(projected) == len(data.gold) < data.tokens


# A command that takes small shards and its time, so that it can be killed in their midst.
COMMAND = """
import sys, time
from lrmoclip.cli import main as cli
from lrmoclip.train import stage0
from lrmoclip.core import store
store.StoreWriter.__init__.__kwdefaults__["shard_positions"] = 400
once, pause = stage0.collect_batch, float(sys.argv[1])
stage0.collect_batch = lambda *given: (time.sleep(pause), once(*given))[1]
sys.exit(cli.main(sys.argv[2:]))
"""


def test_a_command_killed_in_its_midst_ends_in_the_same_bytes(tmp_path, tiny_base, tiny_data):
    def start(out: Path, pause: float = 0.0) -> subprocess.Popen:
        given = {
            "config": TINY, "base": "qwen3-s0", "domain": "telecom", "checkpoint": tiny_base,
            "data": tiny_data, "out": out,
        }  # fmt: skip
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(pause), "stage0", *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    other = start(undisturbed)
    child = start(killed, pause=0.1)
    while not (tmp_path / ".killed.partial" / "new" / shard_name(1)).exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not killed.exists()

    assert start(killed).wait() == other.wait() == 0

    contents = [
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (undisturbed, killed)
    ]
    assert contents[0] == contents[1] and len(contents[0]) > 4
    assert {p.name for p in tmp_path.iterdir()} == {"undisturbed", "killed"}
