"""A run on two processes, its model sharded by FSDP2, against the same run on one."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import destroy_process_group, init_process_group

from lrmoclip.cli import main as cli
from lrmoclip.core import files, sharding
from lrmoclip.models.checkpoints import WEIGHTS
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import Run, TrainingSet, train
from lrmoclip.train.run_state import RunState
from tests.conftest import TINY
from tests.support.runs import (
    EWC,
    LORA,
    MOCLIP,
    REFRESH,
    RESTRICTED,
    make_model,
    make_records,
    make_run,
    make_source,
)
from tests.train.test_run_state import BOUND, Killed

RANKS, SECONDS = 2, 240
LONG = {"micro_batch": 1, "length_buckets": True, "gradient_checkpointing": True}
# name -> the method's axes, the settings of stage1.
CASES = {
    "full_ft": ({}, {}),
    "lr_moclip": ({**RESTRICTED, **MOCLIP}, {}),
    "lora": (LORA, {}),
    "ewc": (EWC, {}),
    "l2_base": ({"penalty": {"name": "l2_base", "strength": 8.0}}, {}),
    "kl_to_base": ({"objective": {"name": "kl_to_base", "weight": 0.5}}, {}),
    # One general record a step: one of the two processes has none.
    "replay": ({**RESTRICTED, **MOCLIP, "replay": 0.25}, {}),
    "refresh": ({**REFRESH, "replay": 0.5}, {}),
    "micro_batches": ({**RESTRICTED, **MOCLIP, "replay": 0.25}, LONG),
}


def build(name: str) -> Run:
    point, settings = CASES[name]
    model = make_model()
    data = {"domain": make_records(), "general": make_records(seed=5)}
    if point.get("objective") in (RESTRICTED["objective"], REFRESH["objective"]):
        sources = {key: make_source(model, records) for key, records in data.items()}
    else:
        sources = {key: TrainingSet(records) for key, records in data.items()}
    fisher = {n: torch.rand_like(p) for n, p in model.named_parameters()}
    more = {"general": sources["general"], "fisher": fisher, "base": make_model()}
    return make_run(model, point, sources["domain"], settings, **more)


def trained(run: Run, state: RunState | None = None) -> dict:
    """Weights of the merged model (on rank 0) and what the log holds, as tensors."""
    rows = train(run, ProbeBatch(4), state)
    model = run.merged()
    keys = ("loss", "grad_norm", "supervised", "tokens", "probe_cross_entropy", "outside_mass")
    log = {key: torch.tensor([row[key] for row in rows if key in row]) for key in keys}
    weights = {n: p.detach() for n, p in model.named_parameters()} if model else {}
    return {"log": log, "weights": weights}


def resumed(folder: str) -> dict:
    """What a run that died in its fifth step ends in, and one that was never disturbed."""
    state = RunState(Path(folder) / "kept", BOUND, every=2)
    run = build("micro_batches")
    once = run.step

    def last() -> dict:
        if run.taken == 5:
            raise Killed
        return once()

    run.step = last
    try:
        train(run, ProbeBatch(4), state)
    except Killed:
        sharding.everyone(None)
    kept = sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*.safetensors"))
    again = build("micro_batches")
    found = trained(again, state)
    return {"kept": kept, "resumed": found, "undisturbed": trained(build("micro_batches"))}


def shards(run: Run) -> dict:
    """How much of the parameters lies here, and how much there is."""
    parts = sum(sharding.local(p).numel() for p in run.model.parameters())
    return {"here": parts, "whole": sum(p.numel() for p in run.model.parameters())}


def work(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=SECONDS),
    )
    found = {name: trained(build(name)) for name in CASES}
    found["resumed"] = resumed(folder)
    found["shards"] = shards(build("full_ft"))
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What rank 0 found; processes that hang are ended, and their errors shown."""
    folder = tmp_path_factory.mktemp("ranks")
    running = torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS, join=False)
    deadline = time.monotonic() + SECONDS
    try:
        while not running.join(timeout=1):
            assert time.monotonic() < deadline, "the processes hang"
    finally:
        for process in running.processes:
            process.kill()
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_like_one(found, name):
    want = trained(build(name))

    # Sums in another order: Adam's ratio makes a gradient's last bits up to 1e-3 of a step.
    torch.testing.assert_close(found[name]["weights"], want["weights"], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[name]["log"], want["log"], rtol=1e-5, atol=1e-6)


def test_each_process_holds_half_of_the_parameters(found):
    seen = found["shards"]

    assert seen["here"] == pytest.approx(seen["whole"] / RANKS, rel=0.02)


def test_a_sharded_run_that_died_ends_in_the_same_bits(found):
    seen = found["resumed"]

    assert seen["kept"] == [f"kept/step4/rank{rank}.safetensors" for rank in range(RANKS)]
    torch.testing.assert_close(seen["resumed"], seen["undisturbed"], rtol=0, atol=0)


def command(processes: int, words: list[str], **options) -> None:
    """A command as a rule starts it: by itself, or by torchrun."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    if processes == 1:
        assert cli.main([*words, *given]) == 0
        return
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "lrmoclip", *words, *given],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def given_tiny(tiny_base, tiny_data) -> dict:
    return {
        "config": TINY, "base": "qwen3-s0", "domain": "telecom", "checkpoint": tiny_base,
        "data": tiny_data,
    }  # fmt: skip


def test_the_command_trains_on_what_torchrun_starts(tmp_path, given_tiny):
    for processes in (1, RANKS):
        out = tmp_path / str(processes)
        command(processes, ["train", "--method", "full_ft"], **given_tiny, seeds=1, outs=out)

    assert {p.name for p in tmp_path.iterdir()} == {"1", str(RANKS)}
    one, sharded = (load_file(tmp_path / str(n) / "model" / WEIGHTS) for n in (1, RANKS))
    torch.testing.assert_close(sharded, one, rtol=0, atol=1e-5)
    losses = [pd.read_csv(tmp_path / str(n) / "training.csv")["loss"] for n in (1, RANKS)]
    pd.testing.assert_series_equal(*losses, rtol=1e-5)
    records = [files.read_json(tmp_path / str(n) / "run.json") for n in (1, RANKS)]
    assert [record["devices"] for record in records] == [1, RANKS]


def test_rates_are_swept_on_what_torchrun_starts(tmp_path, given_tiny):
    for processes in (1, RANKS):
        out = tmp_path / f"{processes}.csv"
        command(processes, ["tune", "--method", "full_ft"], **given_tiny, out=out)

    one, sharded = (pd.read_csv(tmp_path / f"{n}.csv") for n in (1, RANKS))
    scored = ["lr", "domain_gain", "exact_gain", "general_loss"]
    assert one[scored].notna().all(axis=None)
    # Of ten items a choice may tip where weights differ in their last bits.
    pd.testing.assert_frame_equal(sharded[scored], one[scored], atol=14)


def test_steps_are_timed_on_what_torchrun_starts(tmp_path, given_tiny):
    store, out = tmp_path / "stage0", tmp_path / "timings.json"
    command(1, ["stage0"], **given_tiny, out=store)
    methods = ["--methods", "full_ft", "lr_moclip"]

    command(RANKS, ["timings", *methods], **given_tiny, store=store, out=out)

    found = files.read_json(out)
    assert set(found["step_s"]) == {"full_ft", "lr_moclip"}
    assert all(s > 0 for s in [*found["step_s"].values(), found["stage0_s"]])
    assert found["fisher_s"] is None  # nobody's
