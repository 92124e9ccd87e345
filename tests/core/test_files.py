"""Files are read with what is wrong said in one line; JSON of ours shows that it was changed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from tests.support.made import write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(min_size=1).filter(lambda name: name not in ("kind", files.SEAL))


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_what_is_sealed_comes_back(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("sealed") / "file.json"

    files.write_sealed(path, "thing", content)

    assert files.read_sealed(path, "thing") == content


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_of_what_is_sealed_is_found(tmp_path_factory, place, change):
    path = tmp_path_factory.mktemp("sealed") / "file.json"
    files.write_sealed(path, "thing", {"name": "wörter", "values": [1, 2.5, None, True]})
    found = bytearray(path.read_bytes())
    found[place % len(found)] ^= change
    path.write_bytes(found)

    with pytest.raises(UserError) as raised:
        files.read_sealed(path, "thing")

    assert str(path) in one_line(raised)


def test_another_kind_is_named(tmp_path):
    files.write_sealed(tmp_path / "file.json", "run", {})

    with pytest.raises(UserError, match="of the kind 'run', not 'evaluation'"):
        files.read_sealed(tmp_path / "file.json", "evaluation")


def test_json_of_another_version_is_named(tmp_path):
    write_json(tmp_path / "file.json", {"rows": []})

    with pytest.raises(UserError, match="made by another version"):
        files.read_sealed(tmp_path / "file.json", "evaluation")


@pytest.mark.parametrize("kind", ["missing", "below a file", "folder", "no name\0at all"])
def test_a_file_that_is_not_there_is_named(tmp_path, kind):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    names = {"missing": "missing", "below a file": "taken/file", "folder": "."}

    with pytest.raises(UserError) as raised:
        files.read_json(tmp_path / names.get(kind, kind))

    assert str(tmp_path) in one_line(raised)


@pytest.mark.parametrize(
    "text",
    [b"", b'{"a": ', b"\xff", b"[" * 100_000, b"[1]"],
    ids=["empty", "cut", "no UTF-8", "deep", "a list"],
)
def test_broken_json_is_named(tmp_path, text):
    (tmp_path / "file.json").write_bytes(text)

    with pytest.raises(UserError, match=r"file\.json") as raised:
        files.read_json(tmp_path / "file.json")

    one_line(raised)


def test_a_line_of_ours_holds_no_line_break():
    error = UserError("results/a\nb\x1b[31m\u2028c: wrong", "Mend\tit")

    assert str(error) == "results/a b [31m c: wrong. Mend it"


def test_a_folders_hash_sees_names_and_bytes_and_nothing_else(tmp_path):
    files.write_text(tmp_path / "one" / "b" / "name", "bytes")
    files.write_text(tmp_path / "same" / "b" / "name", "bytes")
    files.write_text(tmp_path / "renamed" / "b" / "other", "bytes")
    files.write_text(tmp_path / "changed" / "b" / "name", "byte5")

    digests = {p.name: files.sha256(p) for p in tmp_path.iterdir()}

    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 3


def test_text_is_written_as_it_is(tmp_path: Path):
    records = [{"id": "a\u2028b"}, {"id": "ü\x85"}]

    files.write_jsonl(tmp_path / "data.jsonl", records)

    lines = (tmp_path / "data.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == records and lines[-1] == ""


@pytest.mark.parametrize("content", [{"sha256": "of something else"}, {"kind": "another"}])
def test_keys_of_the_seal_are_no_content(tmp_path, content):
    with pytest.raises(ValueError, match="keys"):
        files.write_sealed(tmp_path / "file.json", "thing", content)
    assert not (tmp_path / "file.json").exists()
