"""Where published data come from: a folder with checksums, the hub at pinned revisions, or both.

All give the same records, those of the folder's files: an adapter turns a row of the hub into
the folder's schema with one small function.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data.published.pins import GENERAL

Fields = Mapping[str, type]
FromHub = Callable[[dict, int], dict | None]


class Missing(Exception):
    """A source does not have a set; `reason` says why in one line. No mistake of the user's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    kind: str  # "folder", "hub", or "hub, folder"

    def holder(self, name: str) -> "Folder | Hub":
        """The one source that the set `name` comes from."""
        ...

    def records(
        self, name: str, split: str, fields: Fields, from_hub: FromHub | None = None
    ) -> list[dict]:
        """The records of one split of the set `name`, each with `fields` of the given types.

        name and split: folder and file stem of the data folder, as in `records("easy/blimp",
        "subset", {"id": str, "good": str})`. from_hub(row, number) gives the folder's record of a
        row of the hub, or None where the folder leaves it out; a folder does not need it.
        Raises Missing, or UserError naming file and line, or repository and row.
        """
        ...

    def path(self, name: str) -> Path:
        """A file that is no JSON Lines, such as a database, checked. Raises Missing, UserError."""
        ...


class Folder:
    """The files below `data_dir`, each checked against `SHA256SUMS` before it is used."""

    kind = "folder"

    def __init__(self, data_dir: Path) -> None:
        self.root = Path(data_dir)
        if not self.root.is_dir():
            raise UserError(
                f"data_dir {self.root}: no such folder",
                "Name the data folder: --config data_dir=<folder>",
            )
        self._digests = dict(self._listed())

    def holder(self, name: str) -> "Folder":
        return self

    def records(
        self, name: str, split: str, fields: Fields, from_hub: FromHub | None = None
    ) -> list[dict]:
        path = self.path(f"{name}/{split}.jsonl")
        lines = files.read_text(path).split("\n")  # not splitlines: U+2028 is no end of a record
        records = [
            _parsed(line, f"{path}, line {number}", fields)
            for number, line in enumerate(lines, start=1)
            if line or number < len(lines)
        ]
        if not records:
            raise UserError(f"{path}: no records", "Copy the data folder again")
        return records

    def path(self, name: str) -> Path:
        path = self.root / name
        if name not in self._digests:
            raise Missing(f"the data folder has no {name}")
        if not path.is_file():
            raise UserError(f"{path}: no such file", "Copy the data folder again")
        if files.sha256(path) != self._digests[name]:
            raise UserError(
                f"{path}: its hash is not the one in SHA256SUMS", "Copy the data folder again"
            )
        return path

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Name and digest of each line of SHA256SUMS."""
        sums = self.root / "SHA256SUMS"
        hint = "Name the data folder, or copy it again"
        if not sums.is_file():
            raise UserError(f"data_dir {self.root}: no SHA256SUMS in it", hint)
        for number, line in enumerate(files.read_text(sums).splitlines(), start=1):
            digest, _, name = line.partition("  ")
            if len(digest) != 64 or not name:
                raise UserError(f"{sums}, line {number}: not a digest and a name", hint)
            yield name, digest


class Hub:
    """Data sets of the hub, each at the revision that `pins` states.

    pins: for each set of the data folder `{repo, revision, name, split}`: the hub's name of the
    configuration (may be left out) and of the split; `{split}` in them stands for the folder's
    split, as in `mmlu: {repo: cais/mmlu, revision: <commit>, name: all, split: "{split}"}`.
    snapshot(repo): the folder of a repository that was fetched; without it the hub is asked.
    Code that comes with a data set is never run.
    """

    kind = "hub"

    def __init__(
        self, pins: Mapping[str, Mapping[str, str]], snapshot: Callable[[str], Path] | None = None
    ) -> None:
        self.pins, self.snapshot = pins, snapshot

    def holder(self, name: str) -> "Hub":
        return self

    def records(
        self, name: str, split: str, fields: Fields, from_hub: FromHub | None = None
    ) -> list[dict]:
        if name not in self.pins or from_hub is None:
            raise Missing(f"no pinned data set of the hub holds {name}; it needs a data folder")
        pin = self.pins[name]
        config = pin["name"].format(split=split) if pin.get("name") else None
        part = pin.get("split", "{split}").format(split=split)
        where = " ".join(filter(None, (pin["repo"], config, part))) + f" at {pin['revision']}"
        place_of = self.snapshot or str
        rows = _load(str(place_of(pin["repo"])), config, part, pin["revision"], pin["repo"])
        records = []
        for number, row in enumerate(rows):
            place = f"{where}, row {number}"
            try:
                record = from_hub(row, number)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(
                    f"{place}: not the expected fields ({error})", "Pin the stated revision"
                ) from None
            if record is not None:
                records.append(_checked(record, place, fields, "Pin the stated revision"))
        return records

    def path(self, name: str) -> Path:
        raise Missing(f"the hub has no {name}; it needs a data folder")


class Both:
    """The hub for the sets that are pinned there, a folder for the others."""

    kind = "hub, folder"

    def __init__(self, hub: Hub, folder: Folder) -> None:
        self.hub, self.folder = hub, folder

    def holder(self, name: str) -> Folder | Hub:
        pinned = any(pin == name or pin.startswith(f"{name}/") for pin in self.hub.pins)
        return self.hub if pinned else self.folder

    def records(
        self, name: str, split: str, fields: Fields, from_hub: FromHub | None = None
    ) -> list[dict]:
        return self.holder(name).records(name, split, fields, from_hub)

    def path(self, name: str) -> Path:
        return self.folder.path(name)


def open_source(
    settings: Mapping, data_dir: Path | None, snapshot: Callable[[str], Path] | None = None
) -> Source:
    """The source of a scale's `data` settings: the hub for what its `repositories` pin (`{hub,
    revision}` by role), the folder `data_dir`, if any, for everything else.

    Raises UserError where there is neither, or for a repository that no adapter reads.
    """
    folder = Folder(data_dir) if data_dir is not None else None
    repositories = settings.get("repositories")
    if not repositories:
        if folder is None:
            raise UserError(
                "data: published data need a folder", "Name it: --config data_dir=<folder>"
            )
        return folder
    hub = Hub(_pins(repositories), snapshot)
    return Both(hub, folder) if folder else hub


def _pins(repositories: Mapping[str, Mapping]) -> dict[str, dict[str, str]]:
    known = {**GENERAL, "telecom": {"repo": "netop/TeleQnA", "split": "test"}}
    pins = {}
    for role, entry in repositories.items():
        sets = {name: pin for name, pin in known.items() if pin["repo"] == entry["hub"]}
        if not sets:
            raise UserError(
                f"data.repositories.{role}: {entry['hub']} is none that can be read",
                f"Use some of {', '.join(sorted({pin['repo'] for pin in known.values()}))}",
            )
        pins |= {name: {**pin, "revision": entry["revision"]} for name, pin in sets.items()}
    return pins


def _parsed(line: str, place: str, fields: Fields) -> dict:
    hint = "Copy the data folder again"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg})", hint) from None
    return _checked(record, place, fields, hint)


def _checked(record, place: str, fields: Fields, hint: str) -> dict:
    if not isinstance(record, dict):
        raise UserError(f"{place}: not a JSON object", hint)
    for field, kind in fields.items():
        if field not in record:
            raise UserError(f"{place}: no field {field}", hint)
        if type(record[field]) is not kind:
            raise UserError(f"{place}: {field} is not of type {kind.__name__}", hint)
    return record


def _load(path: str, name: str | None, split: str, revision: str, repo: str):
    """Rows of `path`, a repository of the hub or a snapshot of it."""
    import datasets

    cache = datasets.config.HF_DATASETS_CACHE
    try:
        return datasets.load_dataset(path, name, split=split, revision=revision)
    except (OSError, datasets.exceptions.DatasetsError, ValueError) as error:
        said = " ".join(str(error).split())
        if files.is_full(error):
            raise UserError(
                f"{repo}: no room for it in {cache}", "Free disk space or set HF_HOME elsewhere"
            ) from error
        if "gated" in said:
            raise UserError(
                f"{repo}: gated",
                f"Accept its terms at https://huggingface.co/datasets/{repo}, then run "
                "`hf auth login` or set HF_TOKEN",
            ) from error
        if isinstance(error, ConnectionError):
            raise UserError(
                f"{repo} at {revision}: the hub is out of reach and {cache} does not hold it",
                "Run `lrmoclip fetch` on a connected machine, or name a folder by data_dir",
            ) from error
        raise UserError(
            f"{repo} at {revision}: cannot be loaded ({said})", "Check repository and revision"
        ) from error
