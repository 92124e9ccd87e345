"""Queries that a model may write and a judge must survive: what is refused, and why."""

import hashlib
import os
import sys

import psutil
import pytest

from lrmoclip.data.sql_execution import QueryFailed, run
from tests.support import cells
from tests.support.cells import ENDLESS

LONG = "replace(hex(zeroblob(49500)), '0', 'a')"  # 99 kB
LAST = "replace(hex(zeroblob(4000)), '0', 'b') || 'a'"  # 8 kB

# query -> a word of the reason
REFUSED = {
    # no query
    "": "empty",
    " ;": "empty",
    "-- only a comment": "empty",
    "The answer is 42": "syntax",
    "SELECT town FROM cell": "no such column",
    "SELECT [a\n b] FROM cell": "no such column: a b",
    "SELECT 1; SELECT 2": "one statement",
    "SELECT 1; DROP TABLE cell": "one statement",
    "SELECT '\x00'": "null character",
    "SELECT '\ud800'": "surrogates",
    "SELECT ?": "bindings",
    "SELECT " + "(" * 9_000 + "1" + ")" * 9_000: "stack overflow",
    "SELECT " + "1 + " * 9_000 + "1": "too large",
    # not read-only
    "DELETE FROM cell": "authorized",
    "UPDATE cell SET load = 0": "authorized",
    "INSERT INTO cell VALUES (5, 'Oslo', 0, 0)": "authorized",
    "CREATE TEMP TABLE copy AS SELECT * FROM cell": "authorized",
    "DROP TABLE cell": "authorized",
    "BEGIN": "authorized",
    "VACUUM INTO 'copy.db'": "authorization",
    "ATTACH 'other.db' AS other": "authorized",
    "DETACH main": "authorized",
    "PRAGMA query_only = OFF": "authorized",
    "PRAGMA hard_heap_limit = 0": "authorized",
    "PRAGMA temp_store = FILE": "authorized",
    "PRAGMA table_info(cell)": "authorized",
    "SELECT * FROM pragma_table_info('cell')": "authorized",
    "SELECT load_extension('libm')": "authorized",
    # too much
    "SELECT randomblob(1000000000)": "too big",
    "SELECT zeroblob(1000000000)": "too big",
    "SELECT replace(hex(zeroblob(40000)), '0', '0123456789')": "too big",
    ENDLESS.format("n"): "more than 10000 rows",
    ENDLESS.format("zeroblob(90000)"): "more than 50 MB",
    f"SELECT {'x, ' * 800} 1 FROM (SELECT {LONG} AS x)": "more than 50 MB",
    ENDLESS.format("n") + " ORDER BY zeroblob(90000)": "more than 200 MB",
    "WITH c0 AS (SELECT 1 AS x), "
    + ", ".join(f"c{i} AS (SELECT a.x FROM c{i - 1} a, c{i - 1} b)" for i in range(1, 40))
    + " SELECT x FROM c39": "more than 200 MB",
}

# Some seconds each, the first two in few opcodes.
SLOW = {
    "trim": f"SELECT trim({LONG}, {LAST}) FROM cell",
    "instr": f"SELECT instr({LONG}, replace({LONG}, 'aa', 'a') || a.id || b.id) "
    "FROM cell a, cell b, cell c",
    "many opcodes": ENDLESS.format("sum(n)"),
    "a growing group": ENDLESS.format("count(DISTINCT n % 99)"),
}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return cells.write(tmp_path_factory.mktemp("sql") / "cells.db")


@pytest.mark.parametrize(("query", "word"), REFUSED.items())
def test_what_is_not_one_cheap_select_is_refused_with_a_reason(database, query, word):
    with pytest.raises(QueryFailed) as failure:
        run(database, query, time_limit_s=60)
    assert word in failure.value.reason and "\n" not in failure.value.reason


@pytest.mark.parametrize("query", SLOW.values(), ids=SLOW.keys())
def test_the_limit_of_cpu_time_holds_within_an_opcode(database, query):
    run(database, "SELECT 1")
    before = spent()
    with pytest.raises(QueryFailed, match=r"longer than 0\.2 s of CPU time"):
        run(database, query, time_limit_s=0.2)
    assert 0.15 < spent() - before < 0.4


@pytest.mark.skipif(sys.platform != "linux", reason="others may not limit a process's memory")
def test_the_memory_of_the_process_is_limited_beside_sqlites(database):
    wide = f"SELECT {'x, ' * 1_900} 1 FROM (SELECT {LONG} || char(128512) AS x)"  # 4 bytes a letter
    with pytest.raises(QueryFailed, match="more than 200 MB"):
        run(database, wide, time_limit_s=60)


def spent() -> float:
    """CPU seconds of the processes that this one has started, ended or not."""
    times = [psutil.Process().cpu_times(), *(c.cpu_times() for c in psutil.Process().children())]
    user, system = times[0].children_user, times[0].children_system
    return user + system + sum(t.user + t.system for t in times[1:])


def test_no_query_changes_the_database_or_its_folder(database):
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    for query, word in REFUSED.items():
        if word in ("authorized", "authorization", "one statement"):
            with pytest.raises(QueryFailed):
                run(database, query)
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert [path.name for path in database.parent.iterdir()] == ["cells.db"]


@pytest.mark.parametrize("name", ["a?mode=rwc#b%20 c.db", "it's.db", 'a "b".db', "ø.db", "n\n.db"])
def test_a_path_may_hold_any_character(tmp_path, database, name):
    odd = tmp_path / name
    odd.write_bytes(database.read_bytes())
    assert run(odd, "SELECT count(*) FROM cell").rows == [(4,)]
    assert run(tmp_path / "." / name, "SELECT 1").rows == [(1,)]


def test_a_path_may_hold_bytes_that_are_no_text(tmp_path, database):
    odd = os.path.join(os.fsencode(tmp_path), b"\xff.db")
    with open(odd, "wb") as file:
        file.write(database.read_bytes())
    assert run(os.fsdecode(odd), "SELECT count(*) FROM cell").rows == [(4,)]
