"""The state of a run under way: trained weights, the optimizer's state, generators and the log.

From one a run goes on to the same weights, to the bit, as if it had never been disturbed. Where the
order of the data stands follows from the number of steps."""

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrmoclip.core import files, sharding
from lrmoclip.core.artefacts import check_digest
from lrmoclip.core.candidates import Candidates
from lrmoclip.core.errors import UserError
from lrmoclip.train.sets import Collected

KIND = "run state"


class RunState:
    """The last state of one run under way, in `folder`: `step<n>/rank<r>.safetensors` and `.json`.

    bound: what a run must share with a state to go on from it (hashes of config, base, data; seed),
    JSON-serialisable. every: steps between states, None for none. The folder is the caller's to
    name, and goes with `remove`; it holds one whole state, and while the next is written two. Each
    process of a sharded run keeps its own shards.
    """

    def __init__(self, folder: Path, bound: dict, every: int | None) -> None:
        self.folder = Path(folder)
        self.every = every
        self.rank, ranks = sharding.place()
        self.bound = {**bound, "ranks": ranks}

    def step_taken(self, run, log: list[dict]) -> None:
        """Save the run and its log so far, if it is time to. UserError where that can't be
        written."""
        if self.every and run.taken % self.every == 0 and run.taken < run.steps:
            self.save(run, log)

    def save(self, run, log: list[dict]) -> None:
        unfinished = self.folder / "unfinished"
        if self.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        sharding.everyone(None)
        tensors = unfinished / f"rank{self.rank}.safetensors"
        tensors.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(_state(run)), tensors)
        digests = {tensors.name: files.sha256(tensors)}
        about = {"bound": self.bound, "log": log, "files": digests}
        files.write_sealed(tensors.with_suffix(".json"), KIND, about)
        sharding.everyone(None)
        if self.rank == 0:
            new = self.folder / f"step{run.taken}"
            shutil.rmtree(new, ignore_errors=True)  # of another run, or damaged
            os.replace(unfinished, new)
            for older in self._kept():
                if older != new:
                    shutil.rmtree(older)

    def restore(self, run) -> list[dict]:
        """Bring a fresh run to where the state was taken and return its log; a run without a state
        stays as it is, with an empty one.

        Warns of a state that is damaged or of another run, and begins again.
        """
        kept = sorted(self._kept(), key=_steps, reverse=True)
        if not self.every or not kept:
            return []
        path = kept[0] / f"rank{self.rank}.safetensors"
        log, wrong = self._read(path)
        if wrong := next(filter(None, sharding.everyone(wrong)), None):
            if self.rank == 0:
                warnings.warn(f"{wrong}: the run begins again", stacklevel=2)
            return []
        with safe_open(path, "pt") as file:
            _load(run, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        for _, stream in run.streams:
            for _ in range(_steps(kept[0])):
                next(stream)
        run.taken = _steps(kept[0])
        return log

    def remove(self) -> None:
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, path: Path) -> tuple[list[dict], str | None]:
        """The log of a state, and what is wrong with it."""
        try:
            about = files.read_sealed(path.with_suffix(".json"), KIND)
            if about["bound"] != json.loads(json.dumps(self.bound)):
                return [], f"{path}: of another config, base or data"
            check_digest(path, about["files"][path.name], "The run state is damaged")
            return about["log"], None
        except UserError as error:
            return [], f"{path}: damaged run state ({error})"

    def _kept(self) -> list[Path]:
        return [path for path in self.folder.glob("step*") if path.name[4:].isdecimal()]


def _steps(folder: Path) -> int:
    return int(folder.name.removeprefix("step"))


def _state(run) -> Iterator[tuple[str, Tensor]]:
    """Everything that a step changes, by name; of sharded tensors what lies in this process."""
    for name, parameter in run.parameters.items():
        yield f"weights/{name}", sharding.local(parameter.detach()).contiguous()
        for key, value in run.optimizer.state[parameter].items():
            yield f"optimizer/{key}/{name}", sharding.local(value).contiguous()
    for name, (get, _) in _generators(run).items():
        yield f"generators/{name}", get()
    for place, (source, _) in enumerate(run.streams):
        if source.fresh:  # candidate sets of the model as it was when the epoch began
            yield f"sets/{place}/positions", source.fresh.positions
            for part in fields(Candidates):
                yield f"sets/{place}/{part.name}", getattr(source.fresh.sets, part.name)


@torch.no_grad()
def _load(run, state: dict[str, Tensor]) -> None:
    """The inverse of `_state`, into a run that has taken no step."""
    keys = sorted({name.split("/")[1] for name in state if name.startswith("optimizer/")})
    for name, parameter in run.parameters.items():
        sharding.local(parameter).copy_(state[f"weights/{name}"])
    # An optimizer's own dictionary numbers its parameters, group after group.
    name_of = {parameter: name for name, parameter in run.parameters.items()}
    groups = run.optimizer.state_dict()["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    held = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    moments = {}
    for number, parameter in zip(numbers, held, strict=True):
        found = {key: state.get(f"optimizer/{key}/{name_of[parameter]}") for key in keys}
        moments[number] = {
            key: _as_moment(parameter, value) for key, value in found.items() if value is not None
        }
    run.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for name, (_, put) in _generators(run).items():
        put(state[f"generators/{name}"])
    for place, (source, stream) in enumerate(run.streams):
        if f"sets/{place}/positions" in state:
            parts = {part.name: state[f"sets/{place}/{part.name}"] for part in fields(Candidates)}
            fresh = Collected(Candidates(**parts), state[f"sets/{place}/positions"])
            run.streams[place] = replace(source, fresh=fresh), stream


def _as_moment(parameter: Tensor, value: Tensor) -> Tensor:
    """What lies in this process, as a tensor of the parameter's shards where it has its shape."""
    if value.shape != sharding.local(parameter).shape:
        return value  # such as a count of steps
    moment = torch.zeros_like(parameter, dtype=value.dtype)
    sharding.local(moment).copy_(value)
    return moment


def _generators(run) -> dict:
    """name -> how its state is read and set: the run's own, and torch's for what a model draws."""
    found = {
        "run": (run.dice.get_state, run.dice.set_state),
        "cpu": (torch.get_rng_state, torch.set_rng_state),
    }
    if torch.cuda.is_available():
        found["cuda"] = (torch.cuda.get_rng_state, torch.cuda.set_rng_state)
    return found
