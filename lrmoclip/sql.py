"""The judge of NL2SQL: execution accuracy, as in Spider (Yu et al. 2018, arXiv:1809.08887).

Two queries agree when their results do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from lrmoclip.errors import UserError
from lrmoclip.sql_execution import QueryFailed, execute

_DIGITS = 9  # floats that agree to so many significant digits are equal
_TINY = 1e-12  # ... and below this a float is zero


@dataclass(frozen=True)
class Judgement:
    """`valid`: the predicted query ran within the limits. `reason` is empty where `correct`."""

    correct: bool
    valid: bool
    reason: str = ""


def judge(database: Path, predicted: str, gold: str, *alternatives: str) -> Judgement:
    """Does `predicted` give the rows of `gold`, or of one of the `alternatives`?

    Rows compare as a multiset, or as a list where the outermost query of `gold` has an ORDER BY
    (so gold queries should order totally: rows that tie may come in any order). Columns compare
    by position, their names don't matter. NULL equals NULL, an integer the float of the same
    value, text never a number, and floats agree to 9 significant digits. Two empty results are
    equal, so gold queries should return rows. The reason is that against `gold`.

    Raises UserError where `gold` fails, or an alternative that is needed: that is the data set's
    mistake, not the model's.
    """
    expected = _expected(database, gold)
    try:
        rows = execute(database, predicted)
    except QueryFailed as failure:
        return Judgement(correct=False, valid=False, reason=failure.reason)
    reason = _difference(rows, *expected)
    others = (_expected(database, query) for query in alternatives)
    if reason and any(not _difference(rows, *other) for other in others):
        reason = ""
    return Judgement(correct=not reason, valid=True, reason=reason)


def _expected(database: Path, gold: str) -> tuple[list[tuple], bool]:
    """The rows of a gold query, and whether their order counts."""
    try:
        # trusted: a slow machine may take it
        return execute(database, gold, time_limit_s=60.0), _orders(gold)
    except (QueryFailed, SqlglotError) as error:
        raise UserError(
            f"The gold query fails on {database}: {gold!r} ({error})", "Mend the data set."
        ) from error


def _difference(rows: list[tuple], expected: list[tuple], ordered: bool) -> str:
    """In which respect the rows are not those expected; empty where they are."""
    if len(rows) != len(expected):
        return f"{len(rows)} rows, expected {len(expected)}"
    if rows and len(rows[0]) != len(expected[0]):
        return f"{len(rows[0])} columns, expected {len(expected[0])}"
    if ordered and _agree(rows, expected):
        return ""
    if not _agree(sorted(rows, key=_sort_key), sorted(expected, key=_sort_key)):
        return "other rows"
    return "other order" if ordered else ""


@lru_cache(maxsize=8192)
def _orders(query: str) -> bool:
    """Whether the outermost query has an ORDER BY (one inside a subquery does not count)."""
    return sqlglot.parse_one(query, dialect="sqlite").args.get("order") is not None


def _agree(rows: Sequence[tuple], expected: Sequence[tuple]) -> bool:
    return all(all(map(_same, *pair)) for pair in zip(rows, expected, strict=True))


def _same(one: object, other: object) -> bool:
    if {type(one), type(other)} in ({float}, {float, int}):
        return math.isclose(one, other, rel_tol=10.0**-_DIGITS, abs_tol=_TINY)
    return one == other


def _sort_key(row: tuple) -> tuple:
    """Sorts rows that agree next to each other.

    Rounded cells come first, so that noise in one column cannot reorder rows that differ in a
    later one; the exact cells then separate what rounding made equal (large ids as floats).
    """
    return tuple(map(_rounded, row)), tuple(map(_ranked, row))


def _ranked(cell: object) -> tuple:
    """A cell that compares with any other, in SQLite's order: NULL, numbers, text, blobs."""
    if cell is None:
        return (0, 0)
    return (1 if isinstance(cell, int | float) else 2 if isinstance(cell, str) else 3, cell)


def _rounded(cell: object) -> tuple:
    if isinstance(cell, int | float):
        return (1, 0.0 if abs(cell) < _TINY else float(f"{cell:.{_DIGITS}g}"))
    return _ranked(cell)
