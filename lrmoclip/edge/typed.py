"""What a user writes, read and typed at the edge: YAML without traps, checked by pydantic models,
the first mistake in one line with file, key, value and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from lrmoclip.core import files
from lrmoclip.core.errors import UserError

DEEPEST, LARGEST = 50, 100_000  # levels, and values after every alias is written out

Model = TypeVar("Model", bound=BaseModel)


class Typed(BaseModel):
    """A mapping with these keys and no others, each of its own type: no text for a number, no 8.0
    for an 8, no infinity."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys(cls, given: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        if isinstance(given, dict) and cls.model_config.get("extra") != "allow":
            for key in given:
                if key not in known:
                    raise ValueError(f"unknown key {key!r}. Known keys: {', '.join(known)}")
        return given


# Bounds keep typing errors from becoming weeks, or a traceback of a library.
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e18)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


def by_key(**models: type[BaseModel]) -> Any:
    """The type of a mapping that is one of several models: the first whose name is a key of it,
    else the last."""

    def which(given: dict) -> str:
        return next((name for name in models if name in given), list(models)[-1])

    return _one_of(models, which)


def by_value(key: str, **models: type[BaseModel]) -> Any:
    """The type of a mapping that is the model named by its `key`."""

    def which(given: dict) -> str | None:
        name = given.get(key)
        return name if isinstance(name, str) and name in models else None

    return _one_of(models, which, f"{key} should be one of {', '.join(models)}")


def _one_of(models: dict[str, type], which: Callable, words: str = "should be a mapping") -> Any:
    def tag(value: Any) -> str | None:
        name = which(value) if isinstance(value, dict) else None
        name = next((name for name, model in models.items() if type(value) is model), name)
        return name and f"<{name}>"

    members = [Annotated[model, Tag(f"<{name}>")] for name, model in models.items()]
    discriminator = Discriminator(tag, "one_of", words)
    return Annotated[Union[tuple(members)], discriminator]  # noqa: UP007


def refuse_repeats(key: str, values: list) -> None:
    """ValueError for a value that stands twice in a list."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{key}: {value!r} stands twice. Name each once")


def read_yaml(path: Path, model: type[Model]) -> Model:
    """A YAML file's content as `model`. Raises UserError for the first thing that is wrong."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file", "Name an existing config")
    text = files.read_text(path)
    try:
        loader = _Loader(text)
        try:
            document = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply", f"Allowed: {DEEPEST} levels") from None
    except (ValueError, OverflowError) as error:  # such as a date with a month 13
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: not a mapping of keys to values", "See workflow/config/")
    return checked(document, model, str(path))


def checked(document: Any, model: type[Model], place: str) -> Model:
    """`document` as `model`. Raises UserError with the first mistake, named by place and key."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        key, words = fault(error)
        raise UserError(f"{place}: {key}: {words}", "Mend it") from None


def fault(error: ValidationError) -> tuple[str, str]:
    """(key, what is wrong and what is allowed) of the first mistake."""
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"] if not str(part).startswith("<")]
    said = first["msg"]
    if first["type"] == "missing":
        said = f"no key {keys.pop()!r}"
    elif first["type"] == "value_error":
        said = str(first["ctx"]["error"])
    else:
        said = f"{_shown(first['input'])}: {said[0].lower()}{said[1:]}"
    return ".".join(keys) or "top level", said


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key stands once, and which is not much larger than it looks."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None:
            _size(node, {}, set())
        return node

    def compose_node(self, parent, index):
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} stands twice")
            seen.add(name)
        return node


def _size(node: yaml.Node, known: dict[int, int], around: set[int]) -> int:
    """How many values a node is, every alias written out."""
    if id(node) in around:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias within what it stands for")
    if id(node) not in known:
        around.add(id(node))
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = [n for entry in inner for n in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_size(n, known, around) for n in nodes)
        around.remove(id(node))
        if known[id(node)] > LARGEST:
            raise yaml.YAMLError(f"its aliases stand for more than {LARGEST:,} values")
    return known[id(node)]
