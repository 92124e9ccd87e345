"""The judge of NL2SQL: execution accuracy, as in Spider (Yu et al. 2018, arXiv:1809.08887).

Two queries agree when their results do. Queries come from a model, so they run read-only, alone,
and under limits of time, rows and memory.
"""

import math
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from lrmoclip.errors import UserError

_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
# The progress handler only runs between opcodes; these keep any single opcode short. Nothing in a
# database or a result may be longer than _CELL_BYTES, stored rows included.
_CELL_BYTES = 100_000
_RESULT_BYTES = 50_000_000
# Of all SQLite in this process, and for its lifetime. It also ends compilation, which no handler
# sees: nested WITH clauses can double a statement at every level.
_HEAP_BYTES = 200_000_000
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: _CELL_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_OPCODES_BETWEEN_CHECKS = 100
_DIGITS = 9  # floats that agree to so many significant digits are equal
_TINY = 1e-12  # ... and below this a float is zero


class QueryFailed(Exception):
    """A query that gave no answer; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Judgement:
    """`valid`: the predicted query ran within the limits. `reason` is empty where `correct`."""

    correct: bool
    valid: bool
    reason: str = ""


def execute(
    database: Path, query: str, *, time_limit_s: float = 2.0, row_limit: int = 10_000
) -> list[tuple]:
    """The rows of one read-only `query`; text that is not UTF-8 keeps its bytes as surrogates.

    Raises QueryFailed for anything that is not a single SELECT (WITH, VALUES and EXPLAIN pass), for
    errors of SQLite, and past a limit: `time_limit_s` seconds, `row_limit` rows, 100 kB a cell,
    50 MB in all, 200 MB of SQLite's memory. Raises UserError where the database is missing.

    A double-quoted identifier that SQLite does not know is a string literal to it: such a query
    is valid here, as in every evaluation that runs SQLite, and is found wrong by its rows.
    """
    if not Path(database).is_file():
        raise UserError(f"No database at {database}", "Make the data set first.")
    deadline = time.monotonic() + time_limit_s
    with closing(_open_read_only(Path(database), deadline)) as connection:
        try:
            cursor = connection.execute(query)
            if cursor.description is None:
                raise QueryFailed("empty: no statement in it")
            return _fetch(cursor, row_limit)
        except sqlite3.OperationalError as error:
            if str(error) == "interrupted":
                raise QueryFailed(f"ran longer than {time_limit_s:g} s") from None
            raise QueryFailed(str(error)) from None
        except MemoryError:
            raise QueryFailed(f"needs more than {_HEAP_BYTES // 1_000_000} MB") from None
        # sqlite3.Warning: more than one statement; ValueError: a null character, a lone surrogate
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise QueryFailed(str(error) or type(error).__name__) from None


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


def _open_read_only(database: Path, deadline: float) -> sqlite3.Connection:
    """A connection that can read `database` and do nothing else, until `deadline`."""
    connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA hard_heap_limit = {_HEAP_BYTES}")
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorise)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _OPCODES_BETWEEN_CHECKS)
    return connection


def _authorise(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite asks this for each thing a statement would do; a function's name comes `second`."""
    code = action == sqlite3.SQLITE_FUNCTION and str(second).lower() == "load_extension"
    return sqlite3.SQLITE_OK if action in _ALLOWED and not code else sqlite3.SQLITE_DENY


def _fetch(cursor: sqlite3.Cursor, row_limit: int) -> list[tuple]:
    rows: list[tuple] = []
    room = _RESULT_BYTES
    for row in cursor:
        room -= sum(len(cell) for cell in row if isinstance(cell, str | bytes))
        if len(rows) == row_limit:
            raise QueryFailed(f"more than {row_limit} rows")
        if room < 0:
            raise QueryFailed(f"more than {_RESULT_BYTES // 1_000_000} MB of rows")
        rows.append(row)
    return rows


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
