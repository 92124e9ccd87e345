"""What the commands make, whole or not at all, each with a sealed JSON that says of what kind it
is, where it comes from and which bytes belong to it: SHA-256 by file name, under `files`.

A folder holds its own, `manifest.json`; beside loose files lies one that lists them. Nothing is
ever replaced but what such a JSON of the same kind calls ours, and whoever reads a file checks its
digest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import Hold, is_about_writing, is_unfinished, unwritable

MANIFEST = "manifest.json"
_IGNORED = {".snakemake_timestamp"}  # Snakemake's, in every folder that is an output


@dataclass
class Draft:
    """A folder or files under way.

    path   the folder to write into; it exists
    about  what the JSON will say beside kind and digests; to be filled in by whoever makes it
    """

    path: Path
    about: dict = field(default_factory=dict)
    _finish: Callable[[], None] | None = field(default=None, repr=False)

    def finish(self) -> None:
        """Seal what was written and give it its name, before the context ends."""
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish()

    def give_up(self) -> None:
        """Leave what has the name, if anything, as it is."""
        self._finish = None


@contextmanager
def folder(target: Path, kind: str) -> Iterator[Draft]:
    """Hold a folder before the work; what is written into the draft takes its name at the end.

    An exception leaves an older `target` as it was. UserError where the folder holds anything that
    is not of an artefact of this kind, where another process works on it, and for a full disk.
    """
    with _held(target, partial(check_folder, kind=kind)) as hold:
        hold.new.mkdir()
        draft = Draft(hold.new)

        def finish() -> None:
            seal(draft.path, kind, draft.about)
            hold.place()

        draft._finish = finish
        yield draft
        draft.finish()


@contextmanager
def loose(described: Path, kind: str, *names: str, within: str | None = None) -> Iterator[Draft]:
    """Hold the JSON `described` and the files `names` beside it; the draft's folder is where these
    are written. The JSON takes its name first: whoever dies before the files have theirs leaves
    what is known as ours, and not taken for whole.

    As `folder`, of files. Without names, the JSON is all there is. within: a kind of folder; in one
    that is ours, so are the files of these names, whatever is left of them.
    """
    described = Path(described)
    with _held(described, partial(_check_loose, kind=kind, names=names, within=within)) as hold:
        hold.new.mkdir()
        draft = Draft(hold.new)

        def finish() -> None:
            digests = {name: files.sha256(draft.path / name) for name in names}
            about = {**draft.about, **({"files": digests} if names else {})}
            files.write_sealed(hold.new / described.name, kind, about)
            for name in (described.name, *names):
                (draft.path / name).replace(described.parent / name)

        draft._finish = finish
        yield draft
        draft.finish()


@contextmanager
def file(target: Path, kind: str) -> Iterator[Draft]:
    """Hold one file and the JSON of its stem beside it, which describes it; as `loose`."""
    target = Path(target)
    described = target.with_suffix(".json")
    if described == target:
        raise UserError(f"{target}: .json is for what describes it", "Give it another ending")
    with loose(described, kind, target.name) as draft:
        yield draft


def edit(path: Path, text: str) -> None:
    """Give a user's own file, whose parts between markers are ours, another text."""
    with _held(Path(path), lambda _: None) as hold:
        files.write_text(hold.new, text)
        hold.place()


@contextmanager
def _held(target: Path, check: Callable[[Path], None]) -> Iterator[Hold]:
    hold = Hold(target, check)
    try:
        yield hold
    except Exception as error:
        if isinstance(error, UserError) or not is_about_writing(error, hold.partial):
            raise
        raise unwritable(hold.target, error) from error
    finally:
        hold.release()


def seal(path: Path, kind: str, about: dict) -> None:
    """Write the manifest of a finished folder. `about` must not have the key `files`."""
    files.write_sealed(path / MANIFEST, kind, {**about, "files": digests_of(path)})


def digests_of(path: Path) -> dict[str, str]:
    """SHA-256 of a folder's files by their names from there, in order, its manifest left out. Of a
    folder in it that has a manifest, that alone: it stands for the rest."""
    found = {entry.relative_to(path).as_posix(): entry for entry in _entries(path)}
    return {name: files.sha256(entry) for name, entry in found.items() if name != MANIFEST}


def _entries(path: Path) -> Iterator[Path]:
    for entry in sorted(path.iterdir()):
        if not entry.is_dir():
            yield entry
        elif (entry / MANIFEST).is_file():
            yield entry / MANIFEST
        else:
            yield from _entries(entry)


class Folder:
    """A finished folder artefact that is read. Digests are checked as files are asked for.

    about: its manifest, `files` included. UserError for a folder that is none of this kind.
    """

    def __init__(self, path: Path, kind: str, again: str) -> None:
        """again: the command that makes such a folder, for errors."""
        self.path, self._checked = Path(path), set()
        self.hint = f"Delete {path} and make it again: {again}"
        if not (self.path / MANIFEST).is_file():
            raise UserError(f"{path}: no {kind} folder, it has no {MANIFEST}", f"Make it: {again}")
        self.about = files.read_sealed(self.path / MANIFEST, kind)

    def __contains__(self, name: str) -> bool:
        return name in self.about["files"]

    def file(self, name: str) -> Path:
        """The path of one of its files, whose bytes are those that were written."""
        path = self.path / name
        if name not in self.about["files"]:
            raise UserError(f"{path}: {self.path / MANIFEST} does not list it", self.hint)
        if name not in self._checked:
            check_digest(path, self.about["files"][name], self.hint)
            self._checked.add(name)
        return path

    def digest(self, name: str) -> str:
        """SHA-256 of one of its files, checked."""
        self.file(name)
        return self.about["files"][name]

    def whole(self) -> Path:
        """Its path, all files checked. UserError for one that it does not list, too: a reader
        of the folder may believe it."""
        for name in self.about["files"]:
            self.file(name)
        if foreign := _foreign(self.path):
            raise UserError(
                f"{foreign}: {self.path / MANIFEST} does not list it", "Move it elsewhere"
            )
        return self.path


def beside(path: Path, kind: str, again: str) -> dict:
    """What the JSON of the same stem beside a loose file says of it, the file's bytes checked.

    again: the command that makes both, for errors.
    """
    path = Path(path)
    about = files.read_sealed(path.with_suffix(".json"), kind)
    if path.name not in about.get("files", {}):
        raise UserError(
            f"{path}: {path.with_suffix('.json')} does not list it", f"Make it again: {again}"
        )
    check_digest(path, about["files"][path.name], f"Make it again: {again}")
    return about


def unchanged(path: Path) -> Path:
    """The path of a file that a user may have made: refused where a sealed JSON beside it lists it
    with another digest."""
    path = Path(path)
    for neighbour in sorted(path.parent.glob("*.json")):
        if (digest := _ours(neighbour).get("files", {}).get(path.name)) is not None:
            check_digest(path, digest, f"Make it again, or delete {neighbour}")
    return path


def check_digest(path: Path, digest: str, hint: str) -> None:
    """UserError for a file that is missing or has other bytes."""
    if not path.is_file():
        raise UserError(f"{path}: missing", hint)
    if files.sha256(path) != digest:
        raise UserError(f"{path}: damaged, its checksum differs", hint)


def check_folder(target: Path, kind: str) -> None:
    """Refuse to replace a folder that is neither empty nor an artefact of this kind and of nothing
    else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target}: a file, not a folder", "Name another folder")
    entries = [entry for entry in target.iterdir() if entry.name not in _IGNORED]
    if not entries:
        return
    found = _ours(target / MANIFEST).get("kind")
    stranger = _foreign(target) if found == kind else sorted(entries)[0]
    if stranger:
        what = f"holds a {found}" if found and found != kind else f"holds {stranger.name}"
        raise UserError(
            f"{target}: {what}, and lrmoclip replaces nothing but a {kind} that it made",
            "Name another folder, or move that away",
        )


def _check_loose(
    described: Path, kind: str, names: tuple[str, ...], within: str | None = None
) -> None:
    known, ours = _ours(described), set()
    if known.get("kind") == kind:
        ours = {described.name, *known.get("files", {})}
    elif within and _ours(described.with_name(MANIFEST)).get("kind") == within:
        ours = {described.name, *names}
    for name in (described.name, *names):
        path = described.with_name(name)
        if path.is_dir():
            raise UserError(f"{path}: a folder, not a file", "Name another file")
        if (path.exists() or path.is_symlink()) and name not in ours:
            raise UserError(
                f"{path}: there already, and not a {kind} that lrmoclip made",
                "Name another file, or move that away",
            )


def _foreign(path: Path) -> Path | None:
    """The first file of a folder that is no sealed JSON, and that none in it lists."""
    named = sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir())
    ours = {p for p in named if p.name in _IGNORED or is_unfinished(p)}
    for document in (p for p in named if p.suffix == ".json"):
        if known := _ours(document):
            ours.add(document)
            ours |= {document.parent / name for name in known.get("files", {})}
    return next((p for p in named if p not in ours or p.is_symlink()), None)


def _ours(path: Path) -> dict:
    """A sealed JSON's content, kind included; empty for anything else."""
    try:
        value = files.read_json(path)
        whole = files.is_sealed(value, files.read_text(path))
    except UserError:
        return {}
    listed = value.get("files", {})
    return value if whole and "kind" in value and isinstance(listed, dict) else {}
