"""The judge of NL2SQL: execution accuracy, as in Spider (Yu et al. 2018, arXiv:1809.08887).

Two queries agree when their results do.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot
from sqlglot.errors import SqlglotError

from lrmoclip.errors import UserError
from lrmoclip.sql_execution import QueryFailed, execute
from lrmoclip.sql_results import difference


@dataclass(frozen=True)
class Judgement:
    """`valid`: the predicted query ran within the limits. `reason` is empty where `correct`."""

    correct: bool
    valid: bool
    reason: str = ""


def judge(database: Path, predicted: str, gold: str, *alternatives: str) -> Judgement:
    """Does `predicted` give the rows of `gold`, or of one of the `alternatives`?

    Rows compare as a multiset, or as a list where the outermost query of `gold` has an ORDER BY
    (so gold queries should order totally: rows that tie may come in any order). Columns may
    come in any order, their names don't matter. NULL equals NULL, an integer the float of the same
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
    reason = difference(rows, *expected)
    others = (_expected(database, query) for query in alternatives)
    if reason and any(not difference(rows, *other) for other in others):
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


@lru_cache(maxsize=8192)
def _orders(query: str) -> bool:
    """Whether the outermost query has an ORDER BY (one inside a subquery does not count)."""
    return sqlglot.parse_one(query, dialect="sqlite").args.get("order") is not None
