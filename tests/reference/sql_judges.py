"""Spider's and BIRD's execution match, restated: short, and slow where they are clever.

Spider: `eval_exec_match` of taoyds/test-suite-sql-eval, default options, one database. BIRD:
`calculate_ex` of bird-bench/mini_dev. Each takes a path, the predicted query and gold.
"""

import re
import sqlite3
from collections import Counter
from contextlib import closing
from itertools import permutations
from pathlib import Path


def spider(database: Path, predicted: str, gold: str) -> bool:
    ordered = "order by" in gold.lower()
    try:
        found, expected = (_rows(database, _spiders(q), errors="ignore") for q in (predicted, gold))
    except sqlite3.Error:
        return False
    if len(found) != len(expected) or not found:
        return len(found) == len(expected)
    if len(found[0]) != len(expected[0]):
        return False
    for order in permutations(range(len(found[0]))):
        rows = [tuple(row[i] for i in order) for row in found]
        if rows == expected or (not ordered and Counter(rows) == Counter(expected)):
            return True
    return False


def bird(database: Path, predicted: str, gold: str) -> bool:
    try:
        return set(_rows(database, predicted)) == set(_rows(database, gold))
    except sqlite3.Error:
        return False


def _spiders(query: str) -> str:
    joined = query.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")
    return re.sub(r"\bdistinct\b", "", joined, flags=re.IGNORECASE)


def _rows(database: Path, query: str, errors: str = "strict") -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        if errors != "strict":
            connection.text_factory = lambda raw: raw.decode(errors=errors)
        return connection.execute(query).fetchall()
