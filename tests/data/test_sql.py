"""The judge of NL2SQL: when two queries agree, and docs/sql.md, which says so case by case."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data import sql
from lrmoclip.data.sql import Judgement, judge
from lrmoclip.data.sql_execution import run
from tests.reference import sql_judges
from tests.support import ROOT, cells

PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
LINES = [re.split(r"(?<!\\)\|", line) for line in PAGE.splitlines() if line.startswith("|")]
CASES = {
    name.strip(): [cell.strip(" `").replace(r"\|", "|") for cell in cells]
    for _, name, *cells, _why, _ in LINES
    if cells[-1].strip() in ("right", "wrong")
}


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return cells.write(tmp_path_factory.mktemp("sql") / "cells.db")


@pytest.fixture(scope="module")
def documented(tmp_path_factory) -> Path:
    """The database of docs/sql.md."""
    path = tmp_path_factory.mktemp("sql") / "documented.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)[1])
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
    "float noise": (
        "SELECT 0.1 + load FROM cell WHERE id = 2",
        "SELECT load FROM cell WHERE id = 3",
    ),
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
    "columns in another order": (
        "SELECT city, load, id FROM cell",
        "SELECT id, city, load FROM cell",
    ),
    "columns in another order, rows in the same": (
        "SELECT city, load, id FROM cell ORDER BY id",
        "SELECT id, city, load FROM cell ORDER BY load",
    ),
    "duplicates where gold says DISTINCT": (
        "SELECT city FROM cell ORDER BY city",
        "SELECT DISTINCT city FROM cell ORDER BY city",
    ),
    "no duplicates where the prediction says DISTINCT": (
        "SELECT DISTINCT city FROM cell",
        "SELECT city FROM cell",
    ),
    "constants where gold reads no table": ("SELECT 5 FROM cell LIMIT 1", "SELECT 5"),
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
        "SELECT city FROM cell GROUP BY city",
        "SELECT city FROM cell",
        "3 rows, expected 4",
    ),
    "DISTINCT inside a subquery does not count": (
        "SELECT city FROM (SELECT DISTINCT city FROM cell)",
        "SELECT city FROM cell",
        "3 rows, expected 4",
    ),
    "DISTINCT as an operator does not count": (
        "SELECT city IS DISTINCT FROM 'x' FROM cell GROUP BY city",
        "SELECT 1 FROM cell",
        "3 rows, expected 4",
    ),
    "DISTINCT forgives no other rows": (
        "SELECT DISTINCT band FROM cell",
        "SELECT city FROM cell",
        "3 rows, expected 4",
    ),
    "columns are not cells": (
        "SELECT id, -id FROM cell WHERE id < 3 UNION ALL SELECT -id, id FROM cell WHERE id > 2",
        "SELECT id, -id FROM cell",
        "other rows",
    ),
    "a constant reads no table": ("SELECT 4", "SELECT COUNT(*) FROM cell", "reads no table"),
    "a constant of a subquery reads no table": (
        "WITH cell(n) AS (SELECT 4) SELECT n FROM cell",
        "SELECT COUNT(*) FROM cell",
        "reads no table",
    ),
    "how often a row occurs counts": (
        "SELECT 1 UNION ALL SELECT 1 UNION ALL SELECT 2",
        "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 2",
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


@pytest.mark.parametrize(("predicted", "gold"), SAME.values(), ids=SAME.keys())
def test_queries_that_agree_are_correct(database, predicted, gold):
    assert judge(database, predicted, gold) == Judgement(correct=True, valid=True)


@pytest.mark.parametrize(("predicted", "gold", "reason"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_queries_that_differ_are_valid_but_wrong(database, predicted, gold, reason):
    assert judge(database, predicted, gold) == Judgement(correct=False, valid=True, reason=reason)


@pytest.mark.parametrize(
    ("gold", "predicted", "ours", "spider", "bird"), CASES.values(), ids=CASES.keys()
)
def test_the_page_says_what_each_judge_decides(documented, gold, predicted, ours, spider, bird):
    verdicts = {"right": True, "wrong": False}
    assert judge(documented, predicted, gold).correct == verdicts[ours]
    assert sql_judges.spider(documented, predicted, gold) == verdicts[spider]
    assert sql_judges.bird(documented, predicted, gold) == verdicts[bird]


@pytest.mark.parametrize(
    "word", ["columns", "DISTINCT", "floats", "NULL", "ties under ORDER BY", "empty", "no table"]
)
def test_the_page_has_a_case_of(word):
    assert any(word in name for name in CASES)


def test_a_query_that_fails_is_invalid(database):
    found = judge(database, "SELECT town FROM cell", "SELECT city FROM cell")
    assert found == Judgement(correct=False, valid=False, reason="no such column: town")


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
        judge(database, "SELECT id FROM cell", "SELECT city FROM cell", "SELECT town FROM cell")


def test_a_gold_query_is_run_once_for_each_state_of_its_database(tmp_path, monkeypatch):
    path = cells.write(tmp_path / "cells.db")
    ran = []
    monkeypatch.setattr(
        sql, "run", lambda database, query, **limits: ran.append(query) or run(database, query)
    )
    gold = "SELECT COUNT(*) FROM cell WHERE id > 2"
    for predicted in ("SELECT 2 FROM cell LIMIT 1", "SELECT id FROM cell"):
        judge(path, predicted, gold)
    assert ran.count(gold) == 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM cell WHERE id = 3")
        connection.commit()
    assert not judge(path, "SELECT 2 FROM cell LIMIT 1", gold).correct
    assert ran.count(gold) == 2


@pytest.mark.parametrize("gold", ["SELECT town FROM cell", "", "DELETE FROM cell"])
def test_a_gold_query_that_fails_is_the_data_sets_mistake(database, gold):
    with pytest.raises(UserError, match="gold query fails"):
        judge(database, "SELECT 1", gold)


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.db"):
        judge(tmp_path / "absent.db", "SELECT 1", "SELECT 1")
