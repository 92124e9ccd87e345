"""What an entry on an axis of a method owns: how it is built, what must be there before it runs,
what it keeps for each parameter, what it costs.

An entry is one file in the folder of its axis, with one class: its name there is what a method's
YAML says, its fields are the settings that YAML may give. Nobody outside `methods/` asks which
entry a method has."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args

from lrmoclip.edge.typed import Typed, by_value

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.data.batches import Batch, Encoded

BASELINE, REPLAY, REPAIR = "baseline", "logits replay", "repair"  # families of objectives


class Need(StrEnum):
    """What must be there before a run; the first two cost something to make."""

    STORE = "store"  # the candidate sets of the records that are trained on
    FISHER = "fisher"  # of the base on general data
    GENERAL = "general"  # records of general text
    GENERAL_STORE = "general_store"  # the candidate sets of these
    BASE = "frozen_base"  # the base model, run beside the one that is trained


class Shape(Protocol):
    """What costs are computed from; of a model, see `models.shapes`. Counts of weights."""

    parameters: int
    body: int
    head: int
    d: int
    vocabulary: int
    low_rank: int


@dataclass(frozen=True)
class Context:
    """What a loss is computed from: one forward pass of a step."""

    model: "nn.Module"
    batch: "Batch"
    sets: "Candidates | None"  # of the batch's supervised positions, where the objective needs them
    base: "nn.Module | None"  # the model as it was before training, where the objective needs it
    dice: "torch.Generator"  # of the run


def as_stored(batch: "Batch", sets: "Candidates | None") -> "Candidates | None":
    return sets


@dataclass(frozen=True)
class Loss:
    """An objective at work on some data.

    of     the mean loss over the supervised positions of a forward pass, differentiable
    sets   what the outside mass of a batch is measured on, None for nothing
    size   tokens of these sets, where no store says so
    """

    of: Callable[[Context], "Tensor"]
    sets: Callable[["Batch", "Candidates | None"], "Candidates | None"] = as_stored
    size: int | None = None


class Entry(Typed):
    name: str
    needs: ClassVar[frozenset[Need]] = frozenset()


class Objective(Entry):
    @property
    def family(self) -> str:
        """BASELINE, REPLAY or REPAIR, for pictures."""
        return BASELINE

    @property
    def refreshes(self) -> bool:
        """Whether Stage 0 is collected again, with the model as it is then, at the start of every
        epoch but the first."""
        return False

    def start(self, data: "Sequence[Encoded]") -> Loss:
        """The loss on all records that are trained on: the domain's and, after them, replayed
        ones."""
        raise NotImplementedError

    def narrowed(self, stored: Mapping) -> dict | None:
        """coverage, k_min and k_max at which a store of the settings `stored` is read, None as it
        is. ValueError for a setting that is wider than the stored one."""
        return None

    def products(self, shape: Shape, set_size: float) -> float:
        """Weights of the head that a supervised position is multiplied with, for sets of a mean
        size (0 where there are none)."""
        return shape.head

    def values(self, positions: float, shape: Shape, set_size: float) -> float:
        """float32 values that the loss and its gradient hold over so many positions."""
        return 3 * positions * shape.vocabulary


class Optimizer(Entry):
    state: ClassVar[int]  # values kept for each trained parameter
    passes: ClassVar[float]  # over the trained parameters in memory that a step takes as long as

    def build(
        self,
        model: "nn.Module",
        parameters: "Mapping[str, nn.Parameter]",
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        telemetry: bool = False,
    ) -> "torch.optim.Optimizer":
        """The optimizer of the model's trained `parameters`, by name, in groups if it likes; each
        keeps its own share of the rate. telemetry: also measure what `measures` reports."""
        raise NotImplementedError

    def measures(self, optimizer: "torch.optim.Optimizer") -> dict[str, float]:
        """What the last step of it is worth logging."""
        return {}


class Adapter(Entry):
    passes: ClassVar[int] = 6  # FLOPs of a token and weight: 2 forward, 2 each for two gradients

    def apply(self, model: "nn.Module") -> "nn.Module":
        """The model that is trained. torch's global generator is seeded by the run."""
        return model

    def trained(self, shape: Shape) -> int:
        """Parameters that are trained."""
        return shape.parameters


class Penalty(Entry):
    state: ClassVar[int] = 0  # values kept for each trained parameter, beside the optimizer's
    passes: ClassVar[float] = 0  # as of an optimizer

    def start(
        self, parameters: "Mapping[str, nn.Parameter]", fisher: "Mapping[str, Tensor] | None"
    ) -> "Callable[[], Tensor] | None":
        """What is added to the loss, as a function of what the parameters are then; of sharded ones
        the part that lies in this process."""
        return None


def entries(axis: ModuleType, kind: type[Entry]) -> dict[str, type[Entry]]:
    """The entries in the folder of an axis, by name."""
    found: dict[str, type[Entry]] = {}
    for module in pkgutil.iter_modules(axis.__path__):
        members = vars(importlib.import_module(f"{axis.__name__}.{module.name}")).values()
        for entry in members:
            if isinstance(entry, type) and issubclass(entry, kind) and entry is not kind:
                found[get_args(entry.model_fields["name"].annotation)[0]] = entry
    return found


def one_of(axis: ModuleType, kind: type[Entry]) -> Any:
    """The type of a setting that is one of the entries of an axis."""
    return by_value("name", **entries(axis, kind))
