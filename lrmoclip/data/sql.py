"""The judge of NL2SQL: execution accuracy, as in Spider (Yu et al. 2018, arXiv:1809.08887).

Two queries agree when their results do. docs/sql.md compares this judge with Spider's and BIRD's,
difference by difference.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from lrmoclip.core.errors import UserError
from lrmoclip.data.sql_execution import QueryFailed, Result, run, version_of
from lrmoclip.data.sql_results import difference

_GOLD_LIMIT_S = 60.0  # trusted: it may take its time


@dataclass(frozen=True)
class Judgement:
    """`valid`: the predicted query ran within the limits. `reason` is empty where `correct`."""

    correct: bool
    valid: bool
    reason: str = ""


@dataclass(frozen=True)
class _Gold:
    """A gold query's result; `ordered`, `distinct`: what its outermost query asks for."""

    result: Result
    ordered: bool
    distinct: bool


def judge(database: Path, predicted: str, gold: str, *alternatives: str) -> Judgement:
    """Does `predicted` give the rows of `gold`, or of one of the `alternatives`?

    Rows compare as a multiset, or as a list where the outermost query of `gold` has an ORDER BY
    (so gold queries should order totally: rows that tie may come in any order). Where the outermost
    query of either says DISTINCT, both results are taken as if it did. Columns may come in any
    order, their names don't matter. NULL equals NULL, an integer the float of the same value, text
    never a number, and floats agree to 9 significant digits. Two empty results are equal, so gold
    queries should return rows. A query that reads no table is wrong where gold reads one. The
    reason is that against `gold`.

    Raises UserError where `gold` fails, or an alternative that is needed: that is the data set's
    mistake, not the model's.
    """
    expected = _expected(database, gold)
    try:
        result = run(database, predicted)
    except QueryFailed as failure:
        return Judgement(correct=False, valid=False, reason=failure.reason)
    reason = _difference(predicted, result, expected)
    others = (_expected(database, query) for query in alternatives)
    if reason and any(not _difference(predicted, result, other) for other in others):
        reason = ""
    return Judgement(correct=not reason, valid=True, reason=reason)


def _difference(predicted: str, result: Result, gold: _Gold) -> str:
    if gold.result.tables and not result.tables:
        return "reads no table"
    reason = difference(result.rows, gold.result.rows, gold.ordered)
    if not reason or difference(_once(result.rows), _once(gold.result.rows), gold.ordered):
        return reason
    return "" if gold.distinct or _says_distinct(predicted) else reason


def _once(rows: list[tuple]) -> list[tuple]:
    """What DISTINCT leaves of the rows: the first of those that are equal."""
    return list(dict.fromkeys(rows))


def _says_distinct(predicted: str) -> bool:
    try:
        return _distinct(sqlglot.parse_one(predicted, dialect="sqlite"))
    except (SqlglotError, RecursionError):  # what SQLite ran, sqlglot may not read
        return False


def _distinct(query: exp.Expression) -> bool:
    """Whether it says DISTINCT, or joins queries by a word that implies it, such as UNION."""
    return bool(query.args.get("distinct"))


def _expected(database: Path, gold: str) -> _Gold:
    """A gold query's result; each is run once, unless the database changes."""
    return _run_gold(database, version_of(database), gold)


@lru_cache(maxsize=4096)
def _run_gold(database: Path, version: str, gold: str) -> _Gold:
    try:
        result = run(database, gold, time_limit_s=_GOLD_LIMIT_S)
        query = sqlglot.parse_one(gold, dialect="sqlite")
    except (QueryFailed, SqlglotError) as error:
        raise UserError(
            f"The gold query fails on {database}: {gold!r} ({error})", "Mend the data set."
        ) from error
    return _Gold(result, query.args.get("order") is not None, _distinct(query))
