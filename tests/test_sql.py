"""The judge of NL2SQL: when two queries agree, and what a query from a model cannot do."""

import hashlib
import sqlite3
import time
from pathlib import Path

import pytest

from lrmoclip.errors import UserError
from lrmoclip.sql import Judgement, QueryFailed, execute, judge

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT {} FROM r"


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "cells.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE cell (id INTEGER, city TEXT, load REAL, band INTEGER)")
    connection.executemany(
        "INSERT INTO cell VALUES (?, ?, ?, ?)",
        [
            (1, "Oslo", 0.1, 700),
            (2, "Bergen", 0.2, 800),
            (3, "Oslo", 0.3, None),
            (4, "Narvik", 0.4, 800),
        ],
    )
    connection.commit()
    connection.close()
    return path


SAME = {
    "order is free where gold does not order": (
        "SELECT city FROM cell ORDER BY id DESC",
        "SELECT city FROM cell",
    ),
    "an order inside a subquery does not count": (
        "SELECT city FROM cell ORDER BY id DESC",
        "SELECT city FROM (SELECT city FROM cell ORDER BY id)",
    ),
    "the same order": (
        "SELECT city FROM cell ORDER BY load",
        "SELECT city FROM cell ORDER BY id",
    ),
    "aliases are ignored": ("SELECT city AS town FROM cell AS c", "SELECT city FROM cell"),
    "NULL equals NULL": ("SELECT band FROM cell", "SELECT c.band FROM cell c"),
    "an integer equals its float": ("SELECT 800.0", "SELECT 800"),
    "float noise": ("SELECT 0.1 + 0.2", "SELECT load FROM cell WHERE id = 3"),
    "float noise around zero": ("SELECT 0.1 + 0.2 - 0.3", "SELECT 0"),
    "float noise does not reorder later columns": (
        "SELECT 0.1 + 0.2, 'a' UNION ALL SELECT 0.3, 'b'",
        "SELECT 0.3, 'a' UNION ALL SELECT 0.1 + 0.2, 'b'",
    ),
    "float noise where rounding turns": ("SELECT 12345678.905", "SELECT 12345678.904999999"),
    "large ids as floats": (
        "SELECT 9876543212.0 UNION ALL SELECT 9876543211.0",
        "SELECT 9876543211 UNION ALL SELECT 9876543212",
    ),
    "mixed types sort": (
        "SELECT 'b' UNION ALL SELECT NULL UNION ALL SELECT 2 UNION ALL SELECT x'00'",
        "SELECT x'00' UNION ALL SELECT 2 UNION ALL SELECT 'b' UNION ALL SELECT NULL",
    ),
    "WITH, a comment and a semicolon": (
        "-- towns\nWITH c AS (SELECT city FROM cell) SELECT city FROM c; -- done",
        "SELECT city FROM cell",
    ),
    "the union of gold orders": (
        "SELECT 1 AS n UNION SELECT 2 ORDER BY n DESC",
        "SELECT 1 AS n UNION SELECT 2 ORDER BY n DESC",
    ),
    "both are empty": ("SELECT id FROM cell WHERE id > 9", "SELECT id FROM cell WHERE id < 0"),
}
DIFFERENT = {
    "order counts where gold orders": (
        "SELECT city FROM cell ORDER BY id DESC",
        "SELECT city FROM cell ORDER BY id",
        "other order",
    ),
    "order counts where gold orders a union": (
        "SELECT 1 AS n UNION SELECT 2 ORDER BY n",
        "SELECT 1 AS n UNION SELECT 2 ORDER BY n DESC",
        "other order",
    ),
    "duplicates count": (
        "SELECT DISTINCT city FROM cell",
        "SELECT city FROM cell",
        "3 rows, expected 4",
    ),
    "how often a row occurs counts": (
        "SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 2",
        "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 2",
        "other rows",
    ),
    "columns compare by position": (
        "SELECT city, id FROM cell",
        "SELECT id, city FROM cell",
        "other rows",
    ),
    "the number of columns counts": (
        "SELECT id, city FROM cell",
        "SELECT id FROM cell",
        "2 columns, expected 1",
    ),
    "NULL is not zero": ("SELECT 0", "SELECT NULL", "other rows"),
    "text is not a number": ("SELECT '1'", "SELECT 1", "other rows"),
    "case counts": ("SELECT 'oslo'", "SELECT 'Oslo'", "other rows"),
    "large ids differ": ("SELECT 9876543211", "SELECT 9876543212", "other rows"),
    "floats beyond the tolerance": ("SELECT 0.30001", "SELECT 0.3", "other rows"),
    "an unknown quoted name is a string": (
        'SELECT "town" FROM cell',
        "SELECT city FROM cell",
        "other rows",
    ),
}
# query -> a word of the reason
REFUSED = {
    "": "empty",
    " ;": "empty",
    "-- only a comment": "empty",
    "The answer is 42": "syntax",
    "SELECT town FROM cell": "no such column",
    "SELECT 1; SELECT 2": "one statement",
    "SELECT 1; DROP TABLE cell": "one statement",
    "SELECT '\x00'": "null character",
    "SELECT '\ud800'": "surrogates",
    "SELECT ?": "bindings",
    "DELETE FROM cell": "authorized",
    "UPDATE cell SET load = 0": "authorized",
    "INSERT INTO cell VALUES (5, 'Oslo', 0, 0)": "authorized",
    "CREATE TEMP TABLE copy AS SELECT * FROM cell": "authorized",
    "DROP TABLE cell": "authorized",
    "BEGIN": "authorized",
    "VACUUM INTO 'copy.db'": "authoriz",
    "ATTACH 'other.db' AS other": "authorized",
    "DETACH main": "authorized",
    "PRAGMA query_only = OFF": "authorized",
    "PRAGMA table_info(cell)": "authorized",
    "SELECT * FROM pragma_table_info('cell')": "authorized",
    "SELECT load_extension('libm')": "authorized",
    "SELECT randomblob(1000000000)": "too big",
    "SELECT zeroblob(1000000000)": "too big",
    "SELECT replace(hex(zeroblob(40000)), '0', '0123456789')": "too big",
    "SELECT " + "1 + " * 9_000 + "1": "too large",
    ENDLESS.format("n"): "more than 10000 rows",
    ENDLESS.format("randomblob(90000)"): "more than 50 MB",
    "WITH c0 AS (SELECT 1 AS x), "
    + ", ".join(f"c{i} AS (SELECT a.x FROM c{i - 1} a, c{i - 1} b)" for i in range(1, 40))
    + " SELECT x FROM c39": "more than 200 MB",
}


@pytest.mark.parametrize(("predicted", "gold"), SAME.values(), ids=SAME.keys())
def test_queries_that_agree_are_correct(database, predicted, gold):
    assert judge(database, predicted, gold) == Judgement(correct=True, valid=True)


@pytest.mark.parametrize(("predicted", "gold", "reason"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_queries_that_differ_are_valid_but_wrong(database, predicted, gold, reason):
    assert judge(database, predicted, gold) == Judgement(correct=False, valid=True, reason=reason)


def test_one_of_several_accepted_queries_is_enough(database):
    gold, other = "SELECT city FROM cell", "SELECT id, city FROM cell"
    for predicted in (gold, other):
        assert judge(database, predicted, gold, other, "SELECT 1").correct
    neither = judge(database, "SELECT load FROM cell", gold, other)
    assert neither == judge(database, "SELECT load FROM cell", gold)  # the reason is against gold
    assert not judge(database, "SELECT", gold, other).valid


def test_the_order_counts_by_the_query_that_is_met(database):
    ordered, free = "SELECT city FROM cell ORDER BY id", "SELECT city, id FROM cell"
    assert not judge(database, "SELECT city FROM cell ORDER BY id DESC", ordered, free).correct
    assert judge(database, "SELECT city, id FROM cell ORDER BY id DESC", ordered, free).correct


def test_an_alternative_that_fails_is_the_data_sets_mistake(database):
    with pytest.raises(UserError, match="gold query fails"):
        judge(database, "SELECT 1", "SELECT city FROM cell", "SELECT town FROM cell")


@pytest.mark.parametrize(("query", "word"), REFUSED.items())
def test_what_is_not_one_cheap_select_is_refused_with_a_reason(database, query, word):
    judgement = judge(database, query, "SELECT city FROM cell")
    assert not judgement.correct and not judgement.valid
    assert word in judgement.reason


@pytest.mark.parametrize(
    "query",
    [ENDLESS.format("sum(n)"), ENDLESS.format("randomblob(90000)") + " ORDER BY 1"],
)
def test_an_endless_query_ends_at_the_time_limit(database, query):
    start = time.monotonic()
    with pytest.raises(QueryFailed, match=r"longer than 0\.2 s"):
        execute(database, query, time_limit_s=0.2)
    assert time.monotonic() - start < 1.5


def test_rows_up_to_the_limit_are_returned(database):
    assert len(execute(database, "SELECT id FROM cell", row_limit=4)) == 4
    with pytest.raises(QueryFailed, match="more than 3 rows"):
        execute(database, "SELECT id FROM cell", row_limit=3)


def test_text_that_is_not_utf8_can_be_read(database):
    assert execute(database, "SELECT CAST(x'4fff' AS TEXT)") == [("O\udcff",)]


def test_no_query_changes_the_database_or_its_folder(database):
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    for query in REFUSED:
        judge(database, query, "SELECT 1")
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert [path.name for path in database.parent.iterdir()] == ["cells.db"]


@pytest.mark.parametrize("gold", ["SELECT town FROM cell", "", "DELETE FROM cell"])
def test_a_gold_query_that_fails_is_the_data_sets_mistake(database, gold):
    with pytest.raises(UserError, match="gold query fails"):
        judge(database, "SELECT 1", gold)


def test_a_missing_database_is_named_and_not_created(tmp_path):
    with pytest.raises(UserError, match=r"absent\.db"):
        judge(tmp_path / "absent.db", "SELECT 1", "SELECT 1")
    assert not any(tmp_path.iterdir())


def test_a_path_may_hold_characters_that_mean_something_in_a_uri(tmp_path, database):
    odd = tmp_path / "a?mode=rwc#b%20 c.db"
    odd.write_bytes(database.read_bytes())
    assert execute(odd, "SELECT count(*) FROM cell") == [(4,)]
