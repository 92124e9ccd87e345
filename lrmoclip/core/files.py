"""Reading and writing files: what is wrong with one is said in one line. JSON of ours is sealed:
its last entry is the SHA-256 of all before it, and whoever reads it checks that.

Writing here is plain. What must appear whole or not at all is written into an `artefacts` draft."""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from lrmoclip.core.errors import UserError

SEAL = "sha256"
_AGAIN = "Delete it and run again"
# Text that stands in an error where a library wraps or foresees a full disk in words of its own.
_FULL = (
    *("No space left", "Not enough disk space", "disk is full", "File too large"),
    *("os error 28", "os error 122", "os error 27"),
)


def write_text(path: Path, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def write_sealed(path: Path, kind: str, content: Mapping) -> None:
    """Write `content` as a JSON object that begins with its `kind` and ends with its seal.

    `content` has only what JSON gives back as it was. ValueError where it has one of these keys:
    nobody could read it again.
    """
    if taken := {"kind", SEAL} & content.keys():
        raise ValueError(f"{path}: the seal has the keys {sorted(taken)}, its content may not")
    write_text(path, sealed({"kind": kind, **content}))


def sealed(content: Mapping) -> str:
    """The text of a JSON object, closed by the digest of all before it."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return _as_json({**content, SEAL: digest})


def read_text(path: Path) -> str:
    """A UTF-8 file's text. Raises UserError where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}", _AGAIN) from None
    except (OSError, ValueError) as error:  # the latter for a null byte in a name
        raise UserError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})",
            "Make it with the rule that owns it",
        ) from None


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError with the line of a mistake."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})", _AGAIN) from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply", _AGAIN) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object", _AGAIN)
    return value


def read_sealed(path: Path, kind: str) -> dict:
    """What `write_sealed` wrote, without kind and seal. UserError for a file of another kind, and
    for one that is not, to the byte, what was written."""
    value = read_json(path)
    if value.get("kind") != kind:
        found = f"of the kind {value['kind']!r}" if "kind" in value else "made by another version"
        raise UserError(f"{path}: {found}, not {kind!r}", "Name another file, or make it again")
    if not is_sealed(value, read_text(path)):
        raise UserError(f"{path}: changed since it was made, its checksum differs", _AGAIN)
    return {key: entry for key, entry in value.items() if key not in ("kind", SEAL)}


def is_sealed(value: Mapping, text: str) -> bool:
    """Whether `text` is what `sealed` gives for the JSON object `value` that was read from it."""
    return text == sealed({key: entry for key, entry in value.items() if key != SEAL})


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, as `sha256sum` prints it; of a folder, that of the sorted list
    of its files' names and digests."""
    path = Path(path)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listed = "".join(f"{sha256(f)}  {f.relative_to(path).as_posix()}\n" for f in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror})", "Make it with the rule that owns it"
        ) from None


def is_full(error: BaseException | None) -> bool:
    """Whether the disk is full, which libraries wrap in errors of their own, or ask beforehand."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in _FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _as_json(value) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
