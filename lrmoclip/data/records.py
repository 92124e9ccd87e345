"""Records of data, one a line of a JSON Lines file, checked where they are read: text that can be
tokenised, options of which gold is one, ids that stand once."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from lrmoclip.core import artefacts, files
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import fault

KIND = "data"
HINT = "Mend the line, or make the data again"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError(f"{text!r} is blank")
    return text


Words = Annotated[str, AfterValidator(_not_blank)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]


class Record(TypedDict):
    """One example. `prompt` and `answer` are what a model reads and is to write; a record to choose
    in has `choices` and `gold`, the place of the answer among them; one of SQL has its `database`
    (a file's name without the ending), further right queries as `alternatives`, and `empty` where
    gold returns no rows."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")

    id: Words
    prompt: Words
    answer: Words
    choices: NotRequired[Annotated[list[Words], Field(min_length=2)]]
    gold: NotRequired[Annotated[int, Field(ge=0)]]
    database: NotRequired[FileName]
    alternatives: NotRequired[list[Words]]
    empty: NotRequired[bool]


class Document(TypedDict):
    """A document of one of lm-eval's own tasks, by whose name it says what else it must have."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")

    id: Words
    task: Annotated[str, Field(pattern=r"^\w+$")]


# What a record of a benchmark's kind must have beside id, prompt and answer.
NEEDED = {"choice": ("choices", "gold"), "generate": (), "sql": ("database",)}


def folder(path: Path) -> artefacts.Folder:
    """A data folder: `<set>/<split>.jsonl`, and what its manifest says of them."""
    return artefacts.Folder(path, KIND, "lrmoclip data")


class Data:
    """A scale's data folder and, after it, those of domains of the user's own, read as one."""

    def __init__(self, paths: Path | Iterable[Path]) -> None:
        several = [paths] if isinstance(paths, str | Path) else paths
        self._folders = [folder(path) for path in several]
        self.path = self._folders[0].path

    @property
    def about(self) -> dict:
        """What the manifests say, together."""
        keys = ("files", "missing", "chance", "sets")
        return {
            k: {n: v for f in self._folders for n, v in f.about.get(k, {}).items()} for k in keys
        }

    def __contains__(self, name: str) -> bool:
        return any(name in each for each in self._folders)

    def file(self, name: str) -> Path:
        """As `artefacts.Folder.file`."""
        return self._holder(name).file(name)

    def digest(self, name: str) -> str:
        return self._holder(name).digest(name)

    def _holder(self, name: str) -> artefacts.Folder:
        return next((each for each in self._folders if name in each), self._folders[0])


def split_of(task: str, split: str) -> str:
    """The name of a file in the data folder."""
    return f"{task}/{split}.jsonl"


def read(path: Path, needed: Iterable[str] = (), *, repeats: bool = False) -> list[Record]:
    """The records of a file, at least one, each with the fields `needed`.

    repeats: an id may recur (pretraining text is drawn with replacement). Raises UserError with
    file and line of the first record that is broken or contradicts itself.
    """
    records = _read(path, Record)
    for number, record in enumerate(records, start=1):
        if wrong := _contradiction(record, needed):
            raise UserError(f"{path}, line {number}: {wrong}", HINT)
    if not repeats:
        _refuse_repeats(path, records)
    return records


def read_documents(path: Path) -> list[Document]:
    """The documents of a file, at least one. Raises UserError as `read`."""
    documents = _read(path, Document)
    _refuse_repeats(path, documents)
    return documents


def sizes(data: Data, domains: Iterable[str]) -> dict[str, dict]:
    """By domain: `train_records`, None for a set without training data, and `chance`, the mean of
    1 / choices over its test items, None where an answer is not a choice; nothing of a domain that
    is not there."""
    found = {}
    for domain in domains:
        train, test = (split_of(domain, split) for split in ("train", "test"))
        if test not in data:
            continue
        choices = [len(item.get("choices", ())) for item in read(data.file(test))]
        found[domain] = {
            "train_records": len(read(data.file(train))) if train in data else None,
            "chance": fmean(1 / count for count in choices) if all(choices) else None,
        }
    return found


def _read(path: Path, kind: type) -> list[Any]:
    lines = files.read_text(path).split("\n")  # not splitlines, which also splits at U+2028
    validate, found = _adapter(kind).validate_json, []
    for number, line in enumerate(lines[: -1 if lines[-1] == "" else None], start=1):
        try:
            found.append(validate(line))
        except ValidationError as error:
            raise UserError(f"{path}, line {number}: {_in_words(error)}", HINT) from None
    if not found:
        raise UserError(f"{path}: no records", "Make the data again")
    return found


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def _in_words(error: ValidationError) -> str:
    key, words = fault(error)
    if "JSON" in words:
        return f"not JSON ({words})"
    return words if key == "top level" else f"{key}: {words}"


def _contradiction(record: Record, needed: Iterable[str]) -> str | None:
    for name in needed:
        if name not in record:
            return f"no key {name!r}"
    if ("choices" in record) != ("gold" in record):
        return "choices and gold need each other"
    if "choices" not in record:
        return None
    choices, gold = record["choices"], record["gold"]
    if twice := [choice for choice in choices if choices.count(choice) > 1]:
        return f"choices: {twice[0]!r} stands twice"
    if gold >= len(choices):
        return f"gold: {gold} of {len(choices)} choices, which count from 0"
    if choices[gold] != record["answer"]:
        return f"gold: choice {gold} is {choices[gold]!r}, the answer {record['answer']!r}"
    return None


def _refuse_repeats(path: Path, records: list) -> None:
    seen: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        if (first := seen.setdefault(record["id"], number)) != number:
            raise UserError(
                f"{path}, line {number}: id {record['id']!r} stands in line {first}", HINT
            )
