"""What many tests share: a tiny world, a tiny base model, and configs with one thing changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from lrmoclip import config

TINY = Path(__file__).parent / "workflow" / "tiny.yaml"
METHODS = Path(__file__).parents[1] / "workflow" / "config" / "methods.yaml"
DROP = "(dropped)"  # as a value in `edit`: the key goes

torch.set_num_threads(1)
# Read when transformers and datasets are imported; the tests never ask a network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class LargestOutput(TorchDispatchMode):
    """Sees every tensor that an operation allocates, in the forward and the backward pass.

    Views and results in place are not new, and of a sparse tensor only what it stores counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numel, self.shapes = 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        held = {_place(x) for x in args if isinstance(x, torch.Tensor)}
        for tensor in out if isinstance(out, list | tuple) else (out,):
            if isinstance(tensor, torch.Tensor) and _place(tensor) not in held:
                self.numel = max(self.numel, _stored(tensor).numel())
                self.shapes.add(tuple(_stored(tensor).shape))
        return out


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout == torch.strided:
        return tensor
    return tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()


def _place(tensor: torch.Tensor) -> int:
    return _stored(tensor).untyped_storage().data_ptr()


def named(value) -> str:
    """A parameter's name in a test's id: `key=value` of a dict, nothing of what is expected."""
    if not isinstance(value, dict):
        return ""
    return ",".join(f"{k}={v.name if isinstance(v, Path) else v}" for k, v in value.items())


@pytest.fixture(scope="session")
def tiny_scale() -> config.Scale:
    return config.load(TINY)


@pytest.fixture(scope="session")
def tiny_world_sizes() -> dict[str, int]:
    """Enough of everything to look for leaks; a pinned digest depends on each."""
    return {
        "pretraining": 3000, "replay": 60, "validation": 10, "test": 40, "databases": 2,
        "nl2sql_train": 120,
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory, tiny_world_sizes) -> Path:
    from lrmoclip.micro import world

    folder = tmp_path_factory.mktemp("world") / "data"
    world.write(folder, seed=3, sizes=tiny_world_sizes)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory, tiny_scale) -> Path:
    """The data folder of tiny.yaml itself."""
    from lrmoclip import commands

    folder = tmp_path_factory.mktemp("tiny") / "data"
    commands.data(tiny_scale, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, tiny_scale, tiny_data) -> Path:
    """The base checkpoint of tiny.yaml."""
    from lrmoclip import commands

    folder = tmp_path_factory.mktemp("tiny") / "base"
    commands.base(tiny_scale, "qwen3-s0", tiny_data, folder)
    return folder


@pytest.fixture
def edit(tmp_path) -> Callable[[Path, dict], Path]:
    """`edit(source, changes)` writes a changed copy of a config and returns its path.

    changes: key (`a/b` is b inside a) -> new value, or DROP. Paths in the source stay valid.
    """

    def edited(source: Path, changes: dict) -> Path:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
        for key in {"$schema", "methods_file", "learning_rates"} & set(document):
            document[key] = str((source.parent / document[key]).resolve())
        for key, value in changes.items():
            *parents, last = key.split("/")
            place = document
            for parent in parents:
                place = place[parent]
            if value is DROP:
                del place[last]
            else:
                place[last] = value
        target = tmp_path / source.name
        target.write_text(yaml.safe_dump(document), encoding="utf-8")
        return target

    return edited
