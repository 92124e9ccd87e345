"""The data folder is written whole or not at all, and its manifest says what is in it."""

import json

import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data.published.sources import Folder, Hub
from lrmoclip.data.published.write import write
from lrmoclip.data.sql_execution import execute
from tests.data.published.conftest import put, seal
from tests.support.made import read_lines

SETTINGS = {
    "generator": "published",
    "seed": 1,
    "domains": {"telecom": {"train": 20, "test": 5}, "nl2sql": {}, "sqleval": {"validation": 2}},
    "general": {"arc_easy": {"validation": 2, "test": 3}, "gpqa": {}},
    "replay": 6,
    "leakage": {"ngram": 13, "limit": 0.0},
}


def content(folder) -> dict[str, bytes]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.fixture
def written(folder, tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def manifest(folder, written) -> dict:
    return write(written, SETTINGS, Folder(folder))


def test_every_file_is_there(written, manifest):
    names = {f"{s}/{p}.jsonl" for s in SETTINGS["domains"] for p in ("train", "validation", "test")}
    names |= {f"{s}/databases/rivers.sqlite" for s in ("nl2sql", "sqleval")}
    names |= {"arc_easy/validation.jsonl", "arc_easy/test.jsonl"}
    names |= {"replay/train.jsonl", "held_out/test.jsonl", "leakage.csv"}

    assert set(content(written)) == names


def test_the_same_seed_gives_the_same_bytes_and_another_others(folder, written, manifest, tmp_path):
    write(tmp_path / "again", SETTINGS, Folder(folder))
    write(tmp_path / "other", SETTINGS | {"seed": 2}, Folder(folder))

    assert content(tmp_path / "again") == content(written)
    assert (
        content(tmp_path / "other")["telecom/train.jsonl"]
        != (content(written)["telecom/train.jsonl"])
    )


def test_records_have_the_fields_of_their_kind_and_no_more(written, manifest):
    text = {"id", "prompt", "answer"}

    def fields(name: str) -> set[str]:
        [found] = {tuple(sorted(record)) for record in read_lines(written / name)}
        return set(found)

    assert fields("telecom/test.jsonl") == text | {"choices", "gold"}
    assert fields("nl2sql/train.jsonl") == text | {"database", "alternatives", "empty"}
    assert fields("replay/train.jsonl") == text


def test_gold_queries_run_on_the_copied_databases(written, manifest):
    for record in read_lines(written / "sqleval/train.jsonl"):
        path = written / "sqleval/databases" / f"{record['database']}.sqlite"
        assert execute(path, record["answer"])


def test_the_manifest_counts_what_is_written_available_and_left_out(written, manifest):
    assert manifest["source"] == "folder"
    train = manifest["sets"]["telecom"]["train"]
    assert train == {"records": 20, "available": 38, "left_out": {"flagged": 6}}
    assert manifest["sets"]["arc_easy"]["test"]["available"] == 4
    for name, splits in manifest["sets"].items():
        for split, about in splits.items():
            lines = (written / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
            assert about["records"] == len(lines)


def test_a_general_benchmark_that_is_not_there_is_missing_with_its_reason(written, manifest):
    assert "gpqa" not in manifest["sets"]
    assert manifest["missing"]["gpqa"].startswith("the data folder has no gpqa")


def test_chance_is_the_mean_over_test_items_of_one_by_their_options(written, manifest):
    chance = manifest["chance"]

    options = [len(r["choices"]) for r in read_lines(written / "telecom/test.jsonl")]
    assert set(options) == {4, 5}
    expected = (options.count(4) / 4 + options.count(5) / 5) / 5
    assert chance == {"telecom": pytest.approx(expected, abs=1e-12), "arc_easy": 0.25}


def test_leaks_are_listed_and_left_out(folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "nl2sql/geography/dev.jsonl").open()]
    put(
        folder,
        "nl2sql/geography/dev.jsonl",
        [*rows, rows[0] | {"id": "twin", "query_split": "test"}],
    )
    seal(folder)

    manifest = write(tmp_path / "data", SETTINGS, Folder(folder))

    listed = (tmp_path / "data/leakage.csv").read_text(encoding="utf-8").splitlines()
    assert "nl2sql,sql,geo-2,twin,true" in listed
    assert "nl2sql,text,geo-2,twin,true" in listed
    assert manifest["sets"]["nl2sql"]["train"]["records"] == 2
    assert manifest["sets"]["nl2sql"]["train"]["left_out"] == {"leaks by text": 1}
    assert manifest["leakage"]["items"]["nl2sql/test"] == {"sql": 1, "text": 1}


def test_a_domain_that_the_source_lacks_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match=r"data\.domains\.nl2sql: .* needs a data folder"):
        write(tmp_path / "data", SETTINGS | {"domains": {"nl2sql": {}}}, Hub({}))

    assert list(tmp_path.iterdir()) == []
