"""The process that runs SQL: one for many queries, ended where a query takes too much or its parent
ends, and what comes back from it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data import sql_execution
from lrmoclip.data.sql_execution import QueryFailed, execute, run
from tests.support import cells
from tests.support.cells import ENDLESS


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return cells.write(tmp_path_factory.mktemp("sql") / "cells.db")


def worker() -> psutil.Process:
    """The process that runs SQL for this one, once it has run some."""
    [found] = [p for p in psutil.Process().children() if "sql_worker" in " ".join(p.cmdline())]
    return found


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def computed(process: psutil.Process) -> float:
    """Seconds of CPU time; 0 when it has ended."""
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def once_busy(process: psutil.Process, act) -> threading.Thread:
    """Call `act` when `process` has begun to compute."""
    start = computed(process)

    def watch() -> None:
        while computed(process) < start + 0.05:
            pass
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("expression", "cell"),
    [
        ("NULL", None),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("5e-324", 5e-324),
        ("9e999", float("inf")),
        ("-9e999", float("-inf")),
        ("x'00ff0a'", b"\x00\xff\n"),
        ("x''", b""),
        ("char(10, 0, 8232, 128512) || '\"\\{}'", '\n\x00\u2028\U0001f600"\\{}'),
        ("CAST(x'4fff' AS TEXT)", "O\udcff"),
        ("CAST(x'eda0bd' AS TEXT)", "\udced\udca0\udcbd"),
    ],
)
def test_a_cell_comes_back_as_sqlite_gives_it(database, expression, cell):
    [(found,)] = execute(database, f"SELECT {expression}")
    assert found == cell and type(found) is type(cell)


def test_rows_up_to_the_limit_are_returned(database):
    assert len(execute(database, "SELECT id FROM cell", row_limit=4)) == 4
    with pytest.raises(QueryFailed, match="more than 3 rows"):
        execute(database, "SELECT id FROM cell", row_limit=3)


@pytest.mark.parametrize(
    ("query", "tables"),
    {
        "SELECT id FROM cell": {"cell"},
        "SELECT COUNT(*) FROM Cell": {"cell"},
        "SELECT 5 FROM cell LIMIT 1": {"cell"},
        "SELECT 5 WHERE EXISTS (SELECT 1 FROM cell)": {"cell"},
        "SELECT name FROM town": {"cell", "town"},
        "WITH c AS (SELECT id FROM cell) SELECT id FROM c": {"cell"},
        "SELECT 5": set(),
        "VALUES (5)": set(),
        "SELECT 5 FROM (SELECT 1)": set(),
        "SELECT 5 FROM (SELECT 1) AS cell": set(),
        "WITH cell(n) AS (SELECT 5) SELECT n FROM cell": set(),
        "WITH c AS (SELECT id FROM cell) SELECT 5": set(),
        "SELECT 5 FROM sqlite_schema LIMIT 1": set(),
    }.items(),
)
def test_a_result_names_the_tables_that_were_read(database, query, tables):
    assert run(database, query).tables == tables


def test_one_process_runs_all_queries_until_one_ends_it(database):
    run(database, "SELECT 1")
    first = worker()
    for query in ("SELECT", "SELECT id FROM cell", ENDLESS.format("n")):
        try:
            run(database, query)
        except QueryFailed:
            assert worker() == first
    with pytest.raises(QueryFailed):
        run(database, ENDLESS.format("sum(n)"), time_limit_s=0.05)
    assert ended(first)
    assert execute(database, "SELECT COUNT(*) FROM cell") == [(4,)]
    assert worker() != first


def test_time_in_which_a_query_does_not_compute_does_not_count(database, tmp_path):
    own = tmp_path / "cells.db"
    own.write_bytes(database.read_bytes())
    run(own, "SELECT 1")
    with closing(sqlite3.connect(own, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        free = threading.Timer(0.5, other.rollback)  # SQLite waits for the lock
        free.start()
        assert execute(own, "SELECT COUNT(*) FROM cell", time_limit_s=0.1) == [(4,)]
        assert free.finished.is_set()
        free.join()


def test_a_machine_that_lets_no_query_run_is_not_the_querys_mistake(
    database, tmp_path, monkeypatch
):
    monkeypatch.setattr(sql_execution, "_PATIENCE_S", 0.2)
    own = tmp_path / "cells.db"
    own.write_bytes(database.read_bytes())
    with closing(sqlite3.connect(own)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"had not its 2 s of CPU time in 0\.2 s"):
            run(own, "SELECT COUNT(*) FROM cell")


def test_a_process_ended_from_outside_is_not_the_querys_mistake(database):
    run(database, "SELECT 1")
    killer = once_busy(worker(), worker().kill)
    with pytest.raises(UserError, match=r"was ended \(status -9\)"):
        run(database, ENDLESS.format("sum(n)"), time_limit_s=30)
    killer.join()
    assert execute(database, "SELECT COUNT(*) FROM cell") == [(4,)]


def test_a_process_ended_between_queries_is_replaced(database):
    run(database, "SELECT 1")
    first = worker()
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert execute(database, "SELECT COUNT(*) FROM cell") == [(4,)]


def test_a_query_that_crashes_sqlite_has_failed(database):
    run(database, "SELECT 1")
    crash = once_busy(worker(), lambda: worker().send_signal(signal.SIGSEGV))
    with pytest.raises(QueryFailed, match=r"crashes SQLite \(SIGSEGV\)"):
        run(database, ENDLESS.format("sum(n)"), time_limit_s=30)
    crash.join()


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_an_answer_that_was_not_awaited_is_not_the_next_ones(database):
    run(database, "SELECT 1")
    stop = once_busy(worker(), interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(database, ENDLESS.format("sum(n)"), time_limit_s=30)
    stop.join()
    assert execute(database, "SELECT COUNT(*) FROM cell") == [(4,)]


def test_threads_get_the_answers_to_their_own_queries(database):
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda n: execute(database, f"SELECT {n}"), range(200))
        assert list(found) == [[(n,)] for n in range(200)]


PARENT = f"""
import os, signal, sys, threading
from pathlib import Path
from lrmoclip.data.sql_execution import execute

def endless():
    execute(Path(sys.argv[1]), "{ENDLESS.format("sum(n)")}", time_limit_s=30)

print(execute(Path(sys.argv[1]), "SELECT 0"), flush=True)
threading.Thread(target=endless).start()
sys.stdin.readline()
if os.fork() == 0:
    signal.alarm(60)
    print(execute(Path(sys.argv[1]), "SELECT 1"), flush=True)
    os._exit(0)
"""


@pytest.fixture
def parent(database) -> Iterator[subprocess.Popen]:
    """A process that is within a query, and forks at a word."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(database)], text=True, **pipes
    ) as process:
        assert process.stdout.readline() == "[(0,)]\n"
        yield process
        process.kill()


def test_it_ends_with_its_parent_within_a_query_too(parent):
    [orphan] = psutil.Process(parent.pid).children()
    once_busy(orphan, parent.kill).join()
    while not ended(orphan):
        assert computed(orphan) < 10  # of the 30 s after which the query ends it


def test_a_fork_within_a_query_has_a_process_of_its_own(parent):
    [busy] = psutil.Process(parent.pid).children()
    once_busy(busy, lambda: print("fork", file=parent.stdin, flush=True)).join()
    assert parent.stdout.readline() == "[(1,)]\n"
    assert computed(busy) < 10


def test_a_database_that_changes_is_read_anew(tmp_path):
    path = cells.write(tmp_path / "cells.db")
    assert execute(path, "SELECT COUNT(*) FROM cell") == [(4,)]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM cell WHERE id = 1")
        connection.commit()
    assert execute(path, "SELECT COUNT(*) FROM cell") == [(3,)]
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (id)")
    assert run(path, "SELECT COUNT(*) FROM other").tables == {"other"}


def test_a_relative_path_is_the_parents(database, monkeypatch):
    run(database, "SELECT 1")  # a process that started elsewhere
    monkeypatch.chdir(database.parent)
    assert execute(Path(database.name), "SELECT COUNT(*) FROM cell") == [(4,)]


@pytest.mark.parametrize("name", ["absent.db", ""])
def test_a_missing_database_is_named_and_not_created(tmp_path, name):
    with pytest.raises(UserError, match=f"No database at .*{name}"):
        run(tmp_path / name, "SELECT 1")
    assert not any(tmp_path.iterdir())


def test_a_database_in_wal_mode_can_be_read(tmp_path):
    path = cells.write(tmp_path / "cells.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("DELETE FROM cell WHERE id = 1")
        connection.commit()
        assert execute(path, "SELECT COUNT(*) FROM cell") == [(3,)]
