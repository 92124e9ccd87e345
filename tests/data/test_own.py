"""A domain of the user's own: a folder of records becomes data like the scale's."""

import json
import shutil
from pathlib import Path

import pytest

from lrmoclip.config import load
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data import own, records
from tests.conftest import TINY
from tests.support import ROOT, cells
from tests.support.made import read_lines, run

HOTELS = ROOT / "examples" / "own_domain" / "hotels"
ALL = dict.fromkeys(("train", "validation", "test"))


def question(i: int, answer: str = "1") -> dict:
    return {"id": f"q{i}", "prompt": f"what number is number {i} ?", "answer": f"{answer}{i}"}


def choice(i: int) -> dict:
    return question(i) | {"choices": [f"1{i}", f"2{i}"], "gold": 0}


@pytest.fixture
def source(tmp_path) -> Path:
    """20 records to train on and 6 to test, to be choices."""
    folder = tmp_path / "source"
    files.write_jsonl(folder / "train.jsonl", [choice(i) for i in range(20)])
    files.write_jsonl(folder / "test.jsonl", [choice(i) for i in range(100, 106)])
    return folder


@pytest.fixture
def write(source, tiny_data, tmp_path):
    """`write(kind, sizes)`: (folder, what the manifest says)."""

    def written(kind: str = "choice", **sizes: int) -> tuple[Path, dict]:
        target, others = tmp_path / "made", records.Data([tiny_data])
        target.mkdir()
        return target / "own", own.write(target, source, "own", kind, ALL | sizes, others, seed=1)

    return written


def test_records_are_kept_as_they_are_and_a_tenth_is_held_out(write, source):
    folder, about = write()

    train, held, test = (read_lines(folder / f"{s}.jsonl") for s in ALL)
    assert (len(train), len(held), len(test)) == (18, 2, 6)
    given = read_lines(source / "train.jsonl")
    assert sorted([*train, *held], key=lambda r: r["id"]) == sorted(given, key=lambda r: r["id"])
    assert "none left out" in own.in_words("own", about)


def test_sizes_are_drawn(write):
    folder, _ = write(train=5, validation=4, test=3)
    assert [len(read_lines(folder / f"{s}.jsonl")) for s in ALL] == [5, 4, 3]


def test_a_file_of_validation_is_taken_as_it_is(write, source):
    files.write_jsonl(source / "validation.jsonl", [choice(i) for i in (50, 51)])
    folder, _ = write()
    assert [len(read_lines(folder / f"{s}.jsonl")) for s in ALL] == [20, 2, 6]


def test_what_a_test_set_shares_is_left_out_and_said(write, source):
    shared = choice(100) | {"id": "again"}
    files.write_jsonl(source / "validation.jsonl", [choice(i) for i in (50, 51)])
    files.write_jsonl(source / "train.jsonl", [*(choice(i) for i in range(20)), shared])
    folder, about = write()

    assert "again" not in [r["id"] for r in read_lines(folder / "train.jsonl")]
    assert "20 of 21 training records, 1 left out" in own.in_words("own", about)
    assert "own,text,again,q100,true" in (folder / "leakage.csv").read_text()


def test_what_a_test_set_of_the_scale_holds_is_left_out(write, source, tiny_data):
    taken = read_lines(tiny_data / "micro_mmlu" / "test.jsonl")[0]
    leak = {key: taken[key] for key in ("prompt", "answer", "choices", "gold")} | {"id": "leak"}
    files.write_jsonl(source / "validation.jsonl", [choice(i) for i in (50, 51)])
    files.write_jsonl(source / "train.jsonl", [*(choice(i) for i in range(20)), leak])

    folder, about = write()

    assert "leak" not in [r["id"] for r in read_lines(folder / "train.jsonl")]
    assert "20 of 21 training records, 1 left out" in own.in_words("own", about)


@pytest.fixture
def sql(source) -> Path:
    """The source as queries on a database; each is asked twice, in other words."""
    (source / "databases").mkdir()
    cells.write(source / "databases" / "net.sqlite")
    rows = [
        {"id": f"{split}{i}{words}", "prompt": f"{words} cells above {10 * i} ?", "database": "net",
         "answer": f"SELECT id FROM cell WHERE band > {700 if i % 2 else 9000} + {i}"}
        for split, start in (("train", 0), ("test", 50)) for i in range(start, start + 15)
        for words in ("which are the", "list all")
    ]  # fmt: skip
    for split in ("train", "test"):
        found = [row for row in rows if row["id"].startswith(split)]
        files.write_jsonl(source / f"{split}.jsonl", found)
    return source


def test_queries_are_run_and_validation_shares_none_with_training(sql, write):
    folder, _ = write("sql")

    train, held = (read_lines(folder / f"{s}.jsonl") for s in ("train", "validation"))
    assert held and not {r["answer"] for r in train} & {r["answer"] for r in held}
    for record in train:
        assert record["empty"] == ("9000" in record["answer"])
    assert (folder / "databases" / "net.sqlite").read_bytes() == (
        sql / "databases" / "net.sqlite"
    ).read_bytes()


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        ("choice", {"id": "x", "prompt": "p", "answer": "a"}, "train.jsonl, line 1"),
        ("sql", {"id": "x", "prompt": "p", "answer": "SELECT 1"}, "train.jsonl, line 1"),
        ("generate", {"id": "x", "prompt": "p"}, "train.jsonl, line 1"),
        ("generate", {"id": "x", "prompt": " ", "answer": "a"}, "blank"),
    ],
)
def test_a_record_that_its_kind_cannot_use_is_named(write, source, kind, line, words):
    (source / "train.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=words):
        write(kind)


@pytest.mark.parametrize(
    ("query", "words"),
    [("SELECT nonsense FROM cell", "no such column"), ("DROP TABLE cell", "fails")],
)
def test_a_query_that_fails_is_named(sql, write, query, words):
    row = {"id": "x", "prompt": "p", "answer": query, "database": "net"}
    (sql / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=words) as raised:
        write("sql")
    assert "train.jsonl, line 1" in str(raised.value)


def test_a_database_that_is_missing_is_named(sql, write):
    (sql / "databases" / "net.sqlite").unlink()
    with pytest.raises(UserError, match=r"net\.sqlite: no such database"):
        write("sql")


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_a_file_that_is_missing_is_named(write, source, name):
    (source / name).unlink()
    with pytest.raises(UserError, match=f"{name}: no such file"):
        write()


def test_the_command_makes_a_data_folder_that_reads_like_the_scales(edit, tiny_data, tmp_path):
    shutil.copytree(HOTELS, tmp_path / "hotels")
    entry = {"task": "hotels", "kind": "choice", "metric": "acc", "folder": "hotels"}
    config = edit(TINY, {"domains/hotels": entry})
    out = tmp_path / "own"

    assert run("own-data", config=config, domain="hotels", data=tiny_data, out=out) == 0

    both = records.Data([tiny_data, out])
    assert "hotels/test.jsonl" in both and "telecom/test.jsonl" in both
    assert len(records.read(both.file("hotels/test.jsonl"))) == 80
    assert load(config).domain("hotels").folder == "hotels"
