"""The judge of NL2SQL: when two queries agree."""

from pathlib import Path

import pytest

from lrmoclip.errors import UserError
from lrmoclip.sql import Judgement, judge
from tests import cells


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return cells.write(tmp_path_factory.mktemp("sql") / "cells.db")


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
    "columns in another order": (
        "SELECT city, load, id FROM cell",
        "SELECT id, city, load FROM cell",
    ),
    "columns in another order, rows in the same": (
        "SELECT city, load, id FROM cell ORDER BY id",
        "SELECT id, city, load FROM cell ORDER BY load",
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
    "columns are not cells": (
        "SELECT id, -id FROM cell WHERE id < 3 UNION ALL SELECT -id, id FROM cell WHERE id > 2",
        "SELECT id, -id FROM cell",
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


def test_a_query_that_fails_is_invalid(database):
    found = judge(database, "SELECT town FROM cell", "SELECT city FROM cell")
    assert found == Judgement(correct=False, valid=False, reason="no such column: town")


@pytest.mark.parametrize("gold", ["SELECT town FROM cell", "", "DELETE FROM cell"])
def test_a_gold_query_that_fails_is_the_data_sets_mistake(database, gold):
    with pytest.raises(UserError, match="gold query fails"):
        judge(database, "SELECT 1", gold)


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.db"):
        judge(tmp_path / "absent.db", "SELECT 1", "SELECT 1")
