"""A run that dies goes on from its run state to the same bits as one that was never disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from lrmoclip.config.parts import Stage1
from lrmoclip.core import files
from lrmoclip.methods import Need
from lrmoclip.methods.optimizers.adamw import AdamW
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import Run, TrainingSet, start, train
from lrmoclip.train.run_state import RunState
from tests.conftest import TINY
from tests.support.runs import (
    EWC,
    LORA,
    MOCLIP,
    REFRESH,
    RESTRICTED,
    SAMPLED,
    SETTINGS,
    make_model,
    make_records,
    make_run,
    make_source,
    point,
)

BOUND = {"config": "c", "base": "b", "data": "d", "seed": 7}
POINTS = {
    "adamw": {},
    "moclip": {**RESTRICTED, **MOCLIP},
    "sampled": {**SAMPLED, **MOCLIP},
    "lora": LORA,
    "ewc": EWC,
    "replay": {**RESTRICTED, "replay": 0.5},
    "refresh": {**REFRESH, "replay": 0.5},
}
STEPS = 6


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def sources():
    """Of the domain and general records, with and without sets."""
    model = make_model()
    domain, general = (make_source(model, make_records(seed=seed)) for seed in (0, 5))
    return {"domain": domain, "general": general}


def fresh(name: str, sources, **settings) -> Run:
    model, sets = make_model(), Need.STORE in point(**POINTS[name]).needs
    found = {k: s if sets else TrainingSet(s.data) for k, s in sources.items()}
    fisher = {n: torch.full_like(p, 0.5) for n, p in model.named_parameters()}
    general = found["general"]
    return make_run(model, POINTS[name], found["domain"], settings, general=general, fisher=fisher)


def outcome(run: Run, rows: list[dict]) -> tuple[bytes, list[dict]]:
    """All weights, and the log without what a clock says."""
    weights = torch.cat([p.detach().flatten() for p in run.model.parameters()])
    clocked = ("step_s", "probe_s", "refresh_s")
    return weights.numpy().tobytes(), [
        {k: v for k, v in row.items() if k not in clocked} for row in rows
    ]


def undisturbed(name: str, sources, **settings) -> tuple[bytes, list[dict]]:
    run = fresh(name, sources, **settings)
    return outcome(run, train(run, ProbeBatch(4)))


def die(run: Run, step: int, state: RunState) -> None:
    """Train until `step` optimisation steps were taken, and die in the next."""
    once = run.step

    def last() -> dict:
        if run.taken == step:
            raise Killed
        return once()

    run.step = last
    with pytest.raises(Killed):
        train(run, ProbeBatch(4), state)


def resumed(name: str, sources, state: RunState, **settings) -> tuple[bytes, list[dict]]:
    run = fresh(name, sources, **settings)
    return outcome(run, train(run, ProbeBatch(4), state))


@pytest.mark.parametrize("step", [1, 3, 5])
@pytest.mark.parametrize("name", POINTS)
def test_a_run_that_died_ends_in_the_same_bits(tmp_path, sources, name, step):
    state = RunState(tmp_path / "kept", BOUND, every=2)
    die(fresh(name, sources), step, state)
    assert [p.name for p in tmp_path.glob("kept/*")] == ([f"step{step - 1}"] if step > 1 else [])

    assert resumed(name, sources, state) == undisturbed(name, sources)


class TwoGroups(AdamW):
    """As an optimizer that treats shapes apart builds it: vectors first, at a tenth of the rate."""

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        vectors = [p for p in parameters.values() if p.dim() < 2]
        matrices = [p for p in parameters.values() if p.dim() > 1]
        groups = [{"params": vectors, "lr": lr / 10}, {"params": matrices}]
        return torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=weight_decay)


def in_groups(sources) -> Run:
    model, settings = make_model(), Stage1(**SETTINGS)
    method = point().model_copy(update={"optimizer": TwoGroups()})
    return start(model, method, settings, lr=1e-2, seed=7, domain=TrainingSet(make_records()))


def test_a_run_whose_optimizer_has_groups_ends_in_the_same_bits(tmp_path, sources):
    state = RunState(tmp_path / "kept", BOUND, every=2)
    die(in_groups(sources), 5, state)
    run, other = in_groups(sources), in_groups(sources)
    again, undisturbed = train(run, ProbeBatch(4), state), train(other, ProbeBatch(4))

    assert outcome(run, again) == outcome(other, undisturbed)


def test_each_group_keeps_its_share_of_the_rate(sources):
    run = in_groups(sources)
    for _ in range(run.steps):
        run.step()
        vectors, matrices = (group["lr"] for group in run.optimizer.param_groups)
        assert vectors == pytest.approx(matrices / 10)


def test_it_goes_on_and_does_not_begin_again(tmp_path, sources):
    state = RunState(tmp_path / "kept", BOUND, every=2)
    die(fresh("moclip", sources), 5, state)
    run = fresh("moclip", sources)
    taken = []
    once = run.step
    run.step = lambda: (taken.append(run.taken), once())[1]

    train(run, None, state)

    assert taken == [4, 5]


def test_it_may_die_more_than_once(tmp_path, sources):
    state = RunState(tmp_path / "kept", BOUND, every=1)
    for step in (2, 4, 5):
        die(fresh("sampled", sources), step, state)

    assert resumed("sampled", sources, state) == undisturbed("sampled", sources)


def test_records_grouped_by_length_are_taken_up_where_they_were_left(tmp_path, sources):
    settings = {"length_buckets": True, "micro_batch": 2, "gradient_checkpointing": True}
    state = RunState(tmp_path / "kept", BOUND, every=2)
    die(fresh("replay", sources, **settings), 5, state)

    again = resumed("replay", sources, state, **settings)

    assert again == undisturbed("replay", sources, **settings)
    assert again != undisturbed("replay", sources)


def test_dying_while_a_run_state_is_written_leaves_the_one_before(tmp_path, sources, monkeypatch):
    state = RunState(tmp_path / "kept", BOUND, every=2)
    run, digest = fresh("moclip", sources), files.sha256

    def killed(path: Path) -> str:
        if run.taken == 4:
            raise Killed
        return digest(path)

    monkeypatch.setattr(files, "sha256", killed)
    with pytest.raises(Killed):
        train(run, ProbeBatch(4), state)
    monkeypatch.undo()
    assert {p.name for p in tmp_path.glob("kept/*")} == {"step2", "unfinished"}

    assert resumed("moclip", sources, state) == undisturbed("moclip", sources)
    assert {p.name for p in tmp_path.glob("kept/*")} == {"step4"}


def truncated(folder: Path) -> None:
    path = folder / "rank0.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def flipped(folder: Path) -> None:
    path = folder / "rank0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def without_tensors(folder: Path) -> None:
    (folder / "rank0.safetensors").unlink()


def without_json(folder: Path) -> None:
    (folder / "rank0.json").unlink()


def with_broken_json(folder: Path) -> None:
    (folder / "rank0.json").write_text('{"log": [')


def with_other_json(folder: Path) -> None:
    (folder / "rank0.json").write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, without_tensors, without_json, with_broken_json, with_other_json],
)
def test_a_damaged_run_state_is_named_and_the_run_begins_again(tmp_path, sources, damage):
    state = RunState(tmp_path / "kept", BOUND, every=4)
    die(fresh("moclip", sources), 5, state)
    damage(tmp_path / "kept" / "step4")

    with pytest.warns(UserWarning, match=r"kept/step4/rank0.*: the run begins again$"):
        again = resumed("moclip", sources, state)

    assert again == undisturbed("moclip", sources)


@pytest.mark.parametrize("key", BOUND)
def test_a_run_state_of_another_run_is_named_and_ignored(tmp_path, sources, key):
    die(fresh("moclip", sources), 5, RunState(tmp_path / "kept", BOUND, every=4))
    other = RunState(tmp_path / "kept", {**BOUND, key: "other"}, every=4)

    with pytest.warns(UserWarning, match="of another config, base or data: the run begins again$"):
        again = resumed("moclip", sources, other)

    assert again == undisturbed("moclip", sources)


def test_without_a_number_of_steps_nothing_is_kept(tmp_path, sources):
    state = RunState(tmp_path / "kept", BOUND, every=None)
    die(fresh("moclip", sources), 5, state)

    assert not list(tmp_path.iterdir())


# The command, its steps slowed down so that it can be killed between two of them.
COMMAND = """
import sys, time
from lrmoclip.cli import main as cli
from lrmoclip.train.run import Run
once, pause = Run.step, float(sys.argv[1])
Run.step = lambda run: (time.sleep(pause), once(run))[1]
sys.exit(cli.main(sys.argv[2:]))
"""


def test_a_command_killed_in_its_midst_ends_in_the_same_bytes(tmp_path, tiny_base, tiny_data, edit):
    changes = {"stage1/epochs": 0.2, "stage1/checkpoint_steps": 2}
    config = edit(TINY, changes)

    def start(out: Path, pause: float = 0.0) -> subprocess.Popen:
        given = {
            "config": config, "base": "qwen3-s0", "domain": "telecom", "method": "full_ft",
            "checkpoint": tiny_base, "data": tiny_data, "seeds": 1, "outs": out,
        }  # fmt: skip
        options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(pause), "train", *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    other = start(tmp_path / "undisturbed")
    child = start(tmp_path / "killed", pause=0.1)
    while not (tmp_path / ".killed.partial" / "state" / "step4").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL and not (tmp_path / "killed").exists()

    assert start(tmp_path / "killed").wait() == other.wait() == 0

    folders = [tmp_path / name for name in ("undisturbed", "killed")]
    one, same = ((f / "model" / "model.safetensors").read_bytes() for f in folders)
    assert one == same
    steps = [json.loads((f / "run.json").read_text())["steps"] for f in folders]
    assert steps[0] == steps[1] > 4
    left = {p.name for p in tmp_path.iterdir()} - {config.name}
    assert left == {"undisturbed", "killed"}


def test_a_run_that_goes_on_says_nothing(tmp_path, sources):
    state = RunState(tmp_path / "kept", BOUND, every=2)
    die(fresh("adamw", sources), 3, state)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed("adamw", sources, state)
