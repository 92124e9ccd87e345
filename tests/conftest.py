"""What many tests share: a tiny world, a tiny base model, and configs with one thing changed."""

import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lrmoclip.config import Scale, load
from tests.support.made import run

TINY = Path(__file__).parent / "workflow" / "tiny.yaml"
METHODS = Path(__file__).parents[1] / "workflow" / "config" / "methods.yaml"
DROP = "(dropped)"  # as a value in `edit`: the key goes

torch.set_num_threads(1)
# A shell's background job, as CI may be, ignores Ctrl-C, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Read when transformers and datasets are imported; the tests never ask a network.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class Allocations(TorchDispatchMode):
    """Sees every tensor that an operation makes anew, in the forward and the backward pass.

    numel: of the largest; shapes: of all; live, peak: bytes held now and at most at a time, a
    storage until its last view is gone. Views and results in place are not new, and of a sparse
    tensor only its values count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numel, self.shapes = 0, set()
        self.live = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        known = {_storage(x)._cdata for x in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = _storage(tensor)
            if storage._cdata not in known:
                known.add(storage._cdata)
                self.numel = max(self.numel, _stored(tensor).numel())
                self.shapes.add(tuple(_stored(tensor).shape))
                self._hold(storage.nbytes())
                weakref.finalize(storage, self._hold, -storage.nbytes())
        return out

    def _hold(self, nbytes: int) -> None:
        self.live += nbytes
        self.peak = max(self.peak, self.live)


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout == torch.strided:
        return tensor
    return tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return _stored(tensor).untyped_storage()


def named(value) -> str:
    """A parameter's name in a test's id, the same in each process: `key=value` of a dict, nothing
    of what is expected."""
    if not isinstance(value, dict):
        return ""
    return ",".join(f"{key}={_in_short(entry)}" for key, entry in value.items())


def _in_short(value) -> str:
    if isinstance(value, Path):
        return value.name
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind}{tuple(value.shape)}"
    return kind if callable(value) or len(str(value)) > 40 else str(value)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Commands under test set threads for the whole process, and another count may change bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_scale() -> Scale:
    return load(TINY)


@pytest.fixture(scope="session")
def tiny_world_sizes() -> dict[str, int]:
    """Enough of everything to look for leaks; a pinned digest depends on each."""
    return {
        "pretraining": 3000, "replay": 60, "validation": 10, "test": 40, "databases": 2,
        "nl2sql_train": 120,
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory, tiny_world_sizes) -> Path:
    from lrmoclip.data.micro import world

    folder = tmp_path_factory.mktemp("world") / "data"
    world.write(folder, seed=3, sizes=tiny_world_sizes)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory, tiny_scale) -> Path:
    """The data folder of tiny.yaml itself."""
    from lrmoclip.cli.commands import data

    folder = tmp_path_factory.mktemp("tiny") / "data"
    data.write(tiny_scale, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory, tiny_data) -> Path:
    """The base checkpoint of tiny.yaml."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    assert run("base", config=TINY, base="qwen3-s0", data=tiny_data, out=folder) == 0
    return folder


@pytest.fixture(scope="session")
def given(tiny_base, tiny_data) -> dict:
    """Options that work for every arrow of the domain telecom."""
    return {
        "config": TINY, "base": "qwen3-s0", "domain": "telecom", "checkpoint": tiny_base,
        "data": tiny_data,
    }  # fmt: skip


@pytest.fixture(scope="session")
def store(given, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "stage0"
    assert run("stage0", **given, out=folder) == 0
    return folder


@pytest.fixture(scope="session")
def trained(given, store, tmp_path_factory) -> Path:
    """A run of the paper's method, seed 1."""
    folder = tmp_path_factory.mktemp("trained") / "seed1"
    assert run("train", **given, method="lr_moclip", seed=1, store=store, out=folder) == 0
    return folder


@pytest.fixture
def edit(tmp_path) -> Callable[[Path, dict], Path]:
    """`edit(source, changes)` writes a changed copy of a config and returns its path.

    changes: key (`a/b` is b inside a) -> new value, or DROP. Paths in the source stay valid.
    """

    def edited(source: Path, changes: dict) -> Path:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
        for key in {"methods_file", "learning_rates"} & set(document):
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
