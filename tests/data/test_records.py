"""Records are checked where they are read: the first broken line is named, whole ones come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data import records
from tests.support.made import read_lines

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
CHOICE = {"id": "a", "prompt": "p", "answer": "x", "choices": ["x", "y"], "gold": 0}


@given(WORDS, WORDS, WORDS)
def test_any_record_comes_back_as_it_was_written(tmp_path_factory, prompt, answer, other):
    path = tmp_path_factory.mktemp("records") / "data.jsonl"
    written = [{"id": "0", "prompt": prompt, "answer": answer, "more": {"any": [other]}}]
    if other != answer:
        written.append({**CHOICE, "answer": answer, "choices": [other, answer], "gold": 1})

    files.write_jsonl(path, written)

    assert records.read(path) == written == read_lines(path)


def test_an_id_that_stands_twice_is_named_with_both_lines(tmp_path):
    files.write_jsonl(tmp_path / "data.jsonl", [CHOICE, {**CHOICE, "id": "b"}, CHOICE])

    with pytest.raises(UserError, match=r"data\.jsonl, line 3: id 'a' stands in line 1"):
        records.read(tmp_path / "data.jsonl")

    assert len(records.read(tmp_path / "data.jsonl", repeats=True)) == 3


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_file_without_records_is_named(tmp_path, text):
    (tmp_path / "data.jsonl").write_text(text)

    with pytest.raises(UserError, match=r"data\.jsonl"):
        records.read(tmp_path / "data.jsonl")


def test_a_file_that_is_not_utf8_is_named_with_the_place(tmp_path):
    (tmp_path / "data.jsonl").write_bytes(b'{"id": "a"}\n\xff\n')

    with pytest.raises(UserError, match=r"data\.jsonl: not UTF-8 at byte 12"):
        records.read(tmp_path / "data.jsonl")


@pytest.mark.parametrize(("kind", "missing"), [("choice", "choices"), ("sql", "database")])
def test_what_a_kind_of_benchmark_needs_is_asked_for(tmp_path, kind, missing):
    files.write_jsonl(tmp_path / "data.jsonl", [{"id": "a", "prompt": "p", "answer": "x"}])

    with pytest.raises(UserError, match=f"line 1: no key '{missing}'"):
        records.read(tmp_path / "data.jsonl", records.NEEDED[kind])
