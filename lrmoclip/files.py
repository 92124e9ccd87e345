"""Files appear whole or not at all: everything is written to a temporary name and then renamed."""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lrmoclip.errors import UserError

# What the system says where the user must make room or mend rights.
_UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
}


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` (a file or a folder) and rename it on success.

    An exception leaves nothing behind and an older `target` as it was. A full disk or a folder
    that can't be written becomes a UserError.
    """
    target = Path(target)
    temporary = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except (OSError, sqlite3.OperationalError, SafetensorError) as error:
        if not _is_about_writing(error):
            raise
        raise UserError(
            f"{target}: cannot be written ({error})", "Free disk space or mend the folder's rights"
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()


def _is_about_writing(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _UNWRITABLE
    return "I/O error" in str(error) or "disk" in str(error)


def is_full(error: BaseException | None) -> bool:
    """Whether the disk is full, which libraries wrap in errors of their own, or ask beforehand."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in ("No space left", "Not enough disk space")):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_text(target: Path, text: str) -> None:
    with whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, value) -> None:
    write_text(target, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_jsonl(target: Path, records: Iterable[dict]) -> None:
    write_text(target, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def read_text(path: Path) -> str:
    """A UTF-8 file's text. Raises UserError where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {error.start}", "Delete it and run again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror})", "Make it with the rule that owns it"
        ) from None


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError with the line of a mistake."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}: not JSON ({error.msg})", "Delete it and run again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object", "Delete it and run again")
    return value


def read_jsonl(path: Path, fields: Iterable[str] = ("id", "prompt", "answer")) -> list[dict]:
    """The records of a JSON Lines file, at least one, each with at least `fields` as text.

    Raises UserError with file and line number for a broken line or a record without a field.
    """
    hint = "Delete the file and run again, or mend the line"
    lines = read_text(path).split("\n")  # not splitlines, which also splits at U+2028 and others
    records = []
    for number, line in enumerate(lines[: -1 if lines[-1] == "" else None], start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg})", hint) from None
        for field in fields:
            if not isinstance(entry, dict) or field not in entry:
                raise UserError(f"{path}, line {number}: no field {field}", hint)
            if not isinstance(entry[field], str) or not entry[field]:
                raise UserError(f"{path}, line {number}: {field} is not a text", hint)
        records.append(entry)
    if not records:
        raise UserError(f"{path}: no records", "Delete the file and run again")
    return records


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
