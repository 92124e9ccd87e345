"""A method is a point on axes: objective, optimizer, adapter, penalty, data mix."""

from typing import Annotated

from pydantic import Field, model_validator

from lrmoclip.edge.typed import Name, Text, Typed
from lrmoclip.methods import adapters, objectives, optimizers, penalties
from lrmoclip.methods.adapters.none import NoAdapter
from lrmoclip.methods.axes import Adapter, Need, Objective, Optimizer, Penalty, one_of
from lrmoclip.methods.objectives.full import Full
from lrmoclip.methods.optimizers.adamw import AdamW
from lrmoclip.methods.penalties.none import NoPenalty

__all__ = ["REFERENCE", "Method", "MethodsFile", "Need"]

REFERENCE = "full_ft"  # the point that costs are held against
TAKEN = ("base", "stage0")  # names of other folders beside a method's


class Method(Typed):
    """A point; an axis that is not named has the default here.

    label: for readers. replay: general records for each domain record, on top of these.
    """

    label: Text
    objective: one_of(objectives, Objective) = Full()
    optimizer: one_of(optimizers, Optimizer) = AdamW()
    adapter: one_of(adapters, Adapter) = NoAdapter()
    penalty: one_of(penalties, Penalty) = NoPenalty()
    replay: Annotated[float, Field(ge=0, le=10)] = 0.0

    @property
    def identity(self) -> dict:
        """Everything that the weights of a run follow from."""
        return self.model_dump(mode="json", exclude={"label"})

    @property
    def needs(self) -> frozenset[Need]:
        """What must be there before a run."""
        axes = (self.objective, self.optimizer, self.adapter, self.penalty)
        needed = frozenset().union(*(axis.needs for axis in axes))
        if self.replay:
            needed |= {Need.GENERAL}
            if Need.STORE in needed:
                needed |= {Need.GENERAL_STORE}
        return needed


class MethodsFile(Typed):
    """methods.yaml."""

    methods: Annotated[dict[Name, Method], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_free(self):
        for name in TAKEN:
            if name in self.methods:
                raise ValueError(f"methods: {name!r} names another folder. Choose another name")
        return self
