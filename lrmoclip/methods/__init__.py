"""A method is a point on axes: objective, optimizer, adapter, penalty, data mix."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from lrmoclip.edge.typed import Name, Text, Typed, fault, refuse_repeats
from lrmoclip.methods import adapters, objectives, optimizers, penalties
from lrmoclip.methods.adapters.none import NoAdapter
from lrmoclip.methods.axes import Adapter, Need, Objective, Optimizer, Penalty, one_of
from lrmoclip.methods.objectives.full import Full
from lrmoclip.methods.optimizers.adamw import AdamW
from lrmoclip.methods.penalties.none import NoPenalty

__all__ = ["REFERENCE", "Method", "MethodsFile", "Need"]

REFERENCE = "full_ft"  # the point that costs are held against
TAKEN = ("base", "stage0")  # names of other folders beside a method's
Setting = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")]


class Method(Typed):
    """A point; an axis that is not named has the default here.

    label: for readers. replay: supervised positions of general records for each one of the domain,
    on top of these. knobs: the settings of its own that are tuned beside the rate, as axis.field,
    with the values to try.
    """

    label: Text
    objective: one_of(objectives, Objective) = Full()
    optimizer: one_of(optimizers, Optimizer) = AdamW()
    adapter: one_of(adapters, Adapter) = NoAdapter()
    penalty: one_of(penalties, Penalty) = NoPenalty()
    replay: Annotated[float, Field(ge=0, le=10)] = 0.0
    knobs: Annotated[
        dict[Setting, Annotated[list[Any], Field(min_length=2)]], Field(max_length=2)
    ] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _knobs_turn(self):
        for setting, values in self.knobs.items():
            refuse_repeats(f"knobs.{setting}", values)
            for value in values:
                try:
                    self.at({setting: value})
                except ValidationError as error:
                    raise ValueError(f"knobs.{setting}: {' '.join(fault(error))}") from None
        return self

    def at(self, settings: Mapping[str, Any]) -> "Method":
        """The point with these settings (axis.field or replay: value). ValidationError for one that
        it does not have, or a value that is not allowed."""
        content = self.model_dump(exclude={"knobs"})
        for setting, value in settings.items():
            axis, _, field = setting.partition(".")
            content[axis] = {**content.get(axis, {}), field: value} if field else value
        return Method.model_validate(content)

    def replayed(self, records: int, domain: float, general: float) -> int:
        """General records beside so many of the domain, whose records have so many supervised
        positions in the mean: at least one, for a method with replay."""
        return max(1, round(self.replay * records * domain / general))

    @property
    def tried(self) -> list[dict[str, Any]]:
        """The settings of its knobs to try: every combination."""
        return [
            dict(zip(self.knobs, values, strict=True)) for values in product(*self.knobs.values())
        ]

    @property
    def identity(self) -> dict:
        """Everything that the weights of a run follow from."""
        return self.model_dump(mode="json", exclude={"label", "knobs"})

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
