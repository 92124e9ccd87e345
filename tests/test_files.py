"""Files appear whole or not at all, and broken ones are named."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from lrmoclip import files
from lrmoclip.errors import UserError

RECORD = '{"id": "a", "prompt": "p", "answer": "x"}\n'


def fail(target: Path, error: Exception) -> None:
    with files.whole(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def content(folder: Path) -> dict[str, str]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in found}


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "file"
    target.write_text("old", encoding="utf-8")

    with pytest.raises(KeyError):
        fail(target, KeyError("bug"))

    assert content(tmp_path) == {"file": "old"}


def test_an_exception_leaves_the_old_folder_and_no_other(tmp_path):
    target = tmp_path / "folder"
    files.write_text(target / "kept", "old")

    with pytest.raises(KeyError), files.whole(target) as temporary:
        temporary.mkdir()
        (temporary / "kept").write_text("half", encoding="utf-8")
        raise KeyError("bug")

    assert content(tmp_path) == {"folder/kept": "old"}


def test_a_file_is_replaced(tmp_path):
    files.write_text(tmp_path / "a" / "file", "old")

    files.write_text(tmp_path / "a" / "file", "new")

    assert content(tmp_path) == {"a/file": "new"}


def test_a_folder_is_replaced_with_all_it_held(tmp_path):
    files.write_text(tmp_path / "folder" / "old", "old")

    with files.whole(tmp_path / "folder") as temporary:
        files.write_text(temporary / "new", "new")

    assert content(tmp_path) == {"folder/new": "new"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        sqlite3.OperationalError("database or disk is full"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["full", "quota", "read-only", "SQLite", "safetensors"],
)
def test_a_full_disk_is_a_users_error(tmp_path, error):
    with pytest.raises(UserError, match="cannot be written") as raised:
        fail(tmp_path / "file", error)

    assert str(tmp_path / "file") in one_line(raised)
    assert content(tmp_path) == {}


@pytest.mark.parametrize("below", ["file", "deep/er/file"])
def test_a_folder_that_is_a_file_is_a_users_error(tmp_path, below):
    (tmp_path / "taken").write_text("kept", encoding="utf-8")

    with pytest.raises(UserError, match="cannot be written") as raised:
        files.write_text(tmp_path / "taken" / below, "new")

    assert str(tmp_path / "taken" / below) in one_line(raised)
    assert content(tmp_path) == {"taken": "kept"}


def test_a_file_over_a_folder_is_a_users_error(tmp_path):
    files.write_text(tmp_path / "folder" / "kept", "kept")

    with pytest.raises(UserError, match="cannot be written"):
        files.write_text(tmp_path / "folder", "new")

    assert content(tmp_path) == {"folder/kept": "kept"}


def test_a_file_that_is_missing_while_writing_is_not_a_full_disk(tmp_path):
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/mnt/disk1/input")

    with pytest.raises(FileNotFoundError):
        fail(tmp_path / "file", missing)


# What a text may hold: everything that UTF-8 can write.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    "text",
    ["plain", "ü '\"\\", "two\nlines", "a\u2028b", "a\x85b\x0c"],
    ids=["plain", "quotes", "newline", "line separator", "next line"],
)
def test_records_come_back_as_they_were_written(tmp_path, text):
    records = [{"id": str(i), "prompt": text, "answer": text[::-1]} for i in range(2)]

    files.write_jsonl(tmp_path / "data.jsonl", records)

    assert files.read_jsonl(tmp_path / "data.jsonl") == records


@given(TEXT, TEXT)
def test_any_record_comes_back_as_it_was_written(tmp_path_factory, prompt, answer):
    path = tmp_path_factory.mktemp("records") / "data.jsonl"
    records = [{"id": "0", "prompt": prompt, "answer": answer}]

    files.write_jsonl(path, records)

    assert files.read_jsonl(path) == records


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b'{"id": "b", "prom\n', "not JSON"),
        (b"\n", "not JSON"),
        (b'{"id": "b", "prompt": "p"}\n', "no field answer"),
        (b'{"id": "b"}\n', "no field prompt"),
        (b'["id", "prompt", "answer"]\n', "no field id"),
        (b"7\n", "no field"),
        (b'{"id": "b", "prompt": 3, "answer": "x"}\n', "prompt"),
        (b'{"id": "b", "prompt": "p", "answer": null}\n', "answer is not a text"),
        (b'{"id": "b", "prompt": "", "answer": "x"}\n', "prompt is not a text"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, broken, words):
    path = tmp_path / "data.jsonl"
    path.write_bytes(2 * RECORD.encode() + broken + RECORD.encode())

    with pytest.raises(UserError, match=words) as raised:
        files.read_jsonl(path)

    assert f"{path}, line 3: " in one_line(raised)


def test_a_file_without_records_is_named(tmp_path):
    (tmp_path / "data.jsonl").touch()

    with pytest.raises(UserError, match=r"data\.jsonl"):
        files.read_jsonl(tmp_path / "data.jsonl")


def test_a_file_that_is_not_utf8_is_named_with_the_place(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(RECORD.encode() + b"\xff\n")

    with pytest.raises(UserError, match=f"not UTF-8 at byte {len(RECORD)}") as raised:
        files.read_jsonl(path)

    assert str(path) in one_line(raised)


@pytest.mark.parametrize("read", [files.read_json, files.read_jsonl])
@pytest.mark.parametrize("kind", ["missing", "below a file", "folder"])
def test_a_file_that_is_not_there_is_named(tmp_path, read, kind):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    names = {"missing": "missing", "below a file": "taken/file", "folder": "."}

    with pytest.raises(UserError) as raised:
        read(tmp_path / names[kind])

    assert str(tmp_path / names[kind]) in one_line(raised)


@pytest.mark.parametrize("text", [b"", b'{"a": ', b"\xff"], ids=["empty", "cut", "no UTF-8"])
def test_broken_json_is_named(tmp_path, text):
    (tmp_path / "file.json").write_bytes(text)

    with pytest.raises(UserError, match=r"file\.json") as raised:
        files.read_json(tmp_path / "file.json")

    one_line(raised)


def test_a_folders_hash_sees_names_and_bytes_and_nothing_else(tmp_path):
    files.write_text(tmp_path / "one" / "b" / "name", "bytes")
    files.write_text(tmp_path / "same" / "b" / "name", "bytes")
    files.write_text(tmp_path / "renamed" / "b" / "other", "bytes")
    files.write_text(tmp_path / "changed" / "b" / "name", "byte5")

    digests = {p.name: files.sha256(p) for p in tmp_path.iterdir()}

    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 3
