"""TeleQnA, GeoQuery and sql-eval become prompts and answers; splits are drawn by seed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core.errors import UserError
from lrmoclip.data.domain import assemble
from lrmoclip.data.published import nl2sql, telecom
from lrmoclip.data.published.sources import Folder, Missing
from tests.data.published.conftest import put, query, seal, teleqna


def ids(records: list[dict]) -> list[str]:
    return [record["id"] for record in records]


def questions(count: int) -> list[dict]:
    return [{"id": str(number), "question": f"question {number}"} for number in range(count)]


class Rows:
    """A source of TeleQnA with these rows as test."""

    kind = "folder"

    def __init__(self, rows: list[dict]) -> None:
        self.splits = {"train": [teleqna(n) for n in (101, 102)], "test": rows, "flagged": []}

    def holder(self, name: str) -> "Rows":
        return self

    def records(self, name: str, split: str, fields, from_hub=None) -> list[dict]:
        return self.splits[split]


# Splits


@given(st.integers(4, 30), st.integers(0, 5), st.data())
def test_splits_are_disjoint_in_order_and_of_the_size_asked_for(count, seed, data):
    held = data.draw(st.integers(1, count - 1))
    train = data.draw(st.integers(1, count - held))
    pools = {"train": questions(count), "test": [{"id": "t", "question": "another"}]}

    drawn = assemble("telecom", pools, {"train": train, "validation": held}, seed)

    trained, kept = (list(map(int, ids(drawn.splits[s]))) for s in ("train", "validation"))
    assert (len(trained), len(kept)) == (train, held)
    assert not set(trained) & set(kept)
    assert trained == sorted(trained)
    assert kept == sorted(kept)
    assert drawn.available == {"train": count - held, "validation": held, "test": 1}


def test_a_larger_subset_contains_a_smaller_one():
    pools = {split: questions(40) for split in ("train", "validation", "test")}

    small, large = (assemble("telecom", pools, {"test": size}, 7).splits for size in (5, 9))

    assert set(ids(small["test"])) < set(ids(large["test"]))


def test_another_seed_draws_other_records():
    pools = {split: questions(40) for split in ("train", "validation", "test")}

    one, two = (assemble("telecom", pools, {"test": 5}, seed).splits for seed in (1, 2))

    assert ids(one["test"]) != ids(two["test"])


def test_a_size_left_out_means_all_and_a_tenth_is_held_out_for_validation():
    drawn = assemble("telecom", {"train": questions(40), "test": questions(3)}, {}, 1)

    assert {split: len(found) for split, found in drawn.splits.items()} == {
        "train": 36,
        "validation": 4,
        "test": 3,
    }


def test_a_question_that_is_asked_twice_is_not_held_out():
    pool = [{"id": str(n), "question": q} for n, q in enumerate(["Why?", "why?", "How?"])]

    drawn = assemble("telecom", {"train": pool, "test": pool}, {"validation": 1}, 1)

    assert ids(drawn.splits["validation"]) == ["2"]
    with pytest.raises(UserError, match=r"telecom\.validation: 2 records asked for, 1 available"):
        assemble("telecom", {"train": pool, "test": pool}, {"validation": 2}, 1)


def test_more_than_there_is_is_refused():
    pools = {split: questions(4) for split in ("train", "validation", "test")}

    with pytest.raises(UserError, match=r"telecom\.test: 5 records asked for, 4 available"):
        assemble("telecom", pools, {"test": 5}, 1)


# TeleQnA


def test_flagged_questions_are_in_no_split(folder):
    domain = telecom.collect(Folder(folder), {}, 1)

    found = {key for records in domain.splits.values() for key in ids(records)}
    assert len(found) == 54
    assert not any(key.endswith("9") for key in found)
    assert domain.left_out == {"train": {"flagged": 6}, "validation": {}, "test": {"flagged": 0}}


@given(
    st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True),
    st.integers(0, 4),
    st.integers(0, 9),
    st.sampled_from(["text", "letter"]),
)
def test_shuffled_options_keep_their_gold(choices, answer, seed, style):
    answer %= len(choices)
    row = {**teleqna(0), "choices": choices, "answer": answer}

    domain = telecom.collect(Rows([row]), {"style": style, "validation": 1}, seed)

    [item] = domain.splits["test"]
    assert item["choices"][item["gold"]] == item["answer"]
    assert item["prose"] == choices[answer]
    if style == "text":
        assert sorted(item["choices"]) == sorted(choices)
    else:
        place = "ABCDE".index(item["answer"])
        assert f"\n{item['answer']}. {choices[answer]}\n" in item["prompt"]
        assert place == item["gold"]


def test_gold_stands_at_every_place(folder):
    rows = [teleqna(number) for number in range(60) if number % 10 != 9]

    items = telecom.collect(Rows(rows), {"validation": 1}, 1).splits["test"]

    assert {item["gold"] for item in items} >= {0, 1, 2, 3}


def test_the_text_style_asks_for_the_options_text(folder):
    item = telecom.collect(Folder(folder), {}, 1).splits["test"][0]

    assert item["prompt"] == "Question: How is beam 0 found? [3GPP Release 14]\nAnswer:"
    assert item["answer"] == "0 by polling"


def test_the_letter_style_lists_the_options(folder):
    text = telecom.collect(Folder(folder), {"style": "text"}, 1).splits["test"][0]

    item = telecom.collect(Folder(folder), {"style": "letter"}, 1).splits["test"][0]

    listed = "\n".join(f"{a}. {o}" for a, o in zip("ABCD", text["choices"], strict=True))
    assert item["prompt"] == f"Question: How is beam 0 found? [3GPP Release 14]\n{listed}\nAnswer:"
    assert item["choices"] == ["A", "B", "C", "D"]
    assert item["answer"] == "ABCD"[text["gold"]]


def test_an_answer_that_is_no_option_is_named():
    rows = [{**teleqna(0), "answer": 4}]

    with pytest.raises(UserError, match="record teleqna-00000: answer 4"):
        telecom.collect(Rows(rows), {"validation": 1}, 1)


# GeoQuery and sql-eval


def change(folder, name: str, **fields) -> None:
    """Set fields of the first record of a file."""
    first, *rest = (folder / name).read_text(encoding="utf-8").splitlines()
    put(folder, name, [json.loads(first) | fields, *map(json.loads, rest)])
    seal(folder)


def test_geoquery_is_grouped_by_its_query_split(folder):
    domain = nl2sql.geography(Folder(folder), {}, 1)

    assert {split: ids(records) for split, records in domain.splits.items()} == {
        "train": ["geo-0", "geo-2", "geo-4"],
        "validation": ["geo-3", "geo-5"],
        "test": ["geo-1"],
    }


def test_geoquery_asks_without_its_schema_and_keeps_the_sql_verbatim(folder):
    domain = nl2sql.geography(Folder(folder), {}, 1)

    [item] = domain.splits["test"]
    assert item["prompt"] == "Question: rivers over 900 miles\nSQL:"
    sql = "SELECT RIVERalias0.NAME FROM RIVER AS RIVERalias0 WHERE LENGTH > 900"
    assert (item["answer"], item["database"]) == (sql, "rivers")
    assert (item["empty"], domain.splits["train"][0]["empty"]) == (True, False)
    assert list(domain.databases) == ["rivers"]


def test_sqleval_shows_schema_and_instructions(folder):
    [item] = nl2sql.sqleval(Folder(folder), {}, 1).splits["test"]

    assert item["prompt"] == (
        "CREATE TABLE river (name TEXT, length INT);\n"
        "Question: How long is the Ob, plus 10?\nInstructions: Use exact names\nSQL:"
    )


def test_the_schema_is_a_setting(folder):
    source = Folder(folder)

    assert nl2sql.geography(source, {"schema": True}, 1).splits["test"][0]["prompt"].startswith("C")
    assert nl2sql.sqleval(source, {"schema": False}, 1).splits["test"][0]["prompt"].startswith("Q")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sql": "SELECT mouth FROM river"}, "no such column: mouth"),
        ({"sql_alternatives": ["SELECT name FROM lake"]}, "no such table: lake"),
        ({"sql": "DELETE FROM river"}, "not authorized"),
        ({"n_result_rows": 0}, "n_result_rows is 0"),
        ({"n_result_rows": 2, "sql": "SELECT name FROM river WHERE 0"}, "n_result_rows is 2"),
    ],
)
def test_a_query_that_does_not_do_what_its_record_says_is_named(folder, fields, named):
    change(folder, "nl2sql/geography/dev.jsonl", **fields)

    with pytest.raises(UserError, match="nl2sql, record geo-2") as caught:
        nl2sql.geography(Folder(folder), {}, 1)

    assert named in str(caught.value)


def test_alternatives_are_kept(folder):
    other = "SELECT name FROM river WHERE length >= 201"
    change(folder, "nl2sql/geography/dev.jsonl", sql_alternatives=[other])

    train = nl2sql.geography(Folder(folder), {}, 1).splits["train"]

    assert [item["alternatives"] for item in train] == [[], [other], []]


def test_a_database_that_the_folder_lacks_is_missing(folder):
    lake = query("q", "How deep?", "SELECT 1", 1, instructions="") | {"db_id": "lakes"}
    put(folder, "nl2sql/sqleval/test.jsonl", [lake])
    seal(folder)

    with pytest.raises(Missing, match=r"lakes\.sqlite"):
        nl2sql.sqleval(Folder(folder), {}, 1)
