"""The process that runs SQL from a model; `sql_execution` starts it and speaks with it.

A request is a line of JSON, that is, the arguments of `_answer`; its answer is a line too,
[rows, tables read, reason of failure], a blob being {"hex": ...}. Queries come in turn. One that
takes too long ends the process, inside an opcode too: the kernel's timers need nobody's help.

Run by its path under `python -I -S`, so it imports the standard library alone.
"""

import json
import os
import resource
import select
import signal
import sqlite3
import sys
import threading
from contextlib import closing, suppress
from functools import lru_cache

_MB = 1_000_000
_HEAP_BYTES = 200 * _MB  # of SQLite; it also ends compilation: nested WITH can double at each level
_RESULT_BYTES = 50 * _MB
# Of the process. SQLite keeps its temporary tables in memory, so it writes no file but the index
# that reading a database in WAL mode makes. A system that knows a limit not (macOS: RLIMIT_AS)
# goes without it, and SQLite's own limits remain.
_PROCESS_LIMITS = {
    resource.RLIMIT_AS: 800 * _MB,
    resource.RLIMIT_FSIZE: _MB,
    resource.RLIMIT_CORE: 0,
}
# Nothing in a database or a result may be longer than 100 kB, stored rows included.
_SQLITE_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


class _Refused(Exception):
    """A query that is no query, or gives too much."""


def main() -> None:
    for limit, value in _PROCESS_LIMITS.items():
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours
    for timer in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(timer, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(_answer(**json.loads(line)) + b"\n")
        sys.stdout.buffer.flush()


def _end_with_the_parent() -> None:
    """Wait until nobody holds the other end of stdin: a query may run when the parent is killed."""
    watch = select.poll()
    watch.register(sys.stdin.fileno(), 0)  # a hang-up is always reported
    watch.poll()
    os._exit(0)


def _answer(
    database: str, version: str, query: str, cpu_s: float, wall_s: float, rows: int
) -> bytes:
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        return _encoded(*_run(*_open_read_only(database, version), query, rows))
    except MemoryError:
        reason = f"needs more than {_HEAP_BYTES // _MB} MB"
    # sqlite3.Warning: more than one statement; ValueError: a null character, a lone surrogate
    except (_Refused, sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # names may hold newlines
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _encoded(reason=reason)


def _encoded(rows: list[tuple] = (), tables: list[str] = (), reason: str = "") -> bytes:
    answer = json.dumps(
        [rows, tables, reason],
        ensure_ascii=False,
        separators=(",", ":"),
        default=lambda blob: {"hex": blob.hex()},
    )
    return answer.encode(errors="surrogatepass")


@lru_cache(maxsize=8)
def _open_read_only(database: str, version: str) -> tuple[sqlite3.Connection, set[str]]:
    """A connection that changes nothing, and the names of the tables and views, in lower case.

    database: a URI; version: another one where the file has changed.
    """
    # No statement of a query stays in memory for the next.
    connection = sqlite3.connect(f"{database}?mode=ro", uri=True, cached_statements=0)
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA hard_heap_limit = {_HEAP_BYTES}")
    for limit, value in _SQLITE_LIMITS.items():
        connection.setlimit(limit, value)
    tables = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"
    return connection, {name.lower() for (name,) in connection.execute(tables)}


def _run(
    connection: sqlite3.Connection, names: set[str], query: str, row_limit: int
) -> tuple[list[tuple], list[str]]:
    """The rows, and which of the tables and views called `names` are read."""
    read: set[str] = set()

    def authorise(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        """SQLite asks for each thing a statement would do; a function's name comes `second`."""
        if action == sqlite3.SQLITE_READ:
            read.add(first.lower())
        code = action == sqlite3.SQLITE_FUNCTION and second.lower() == "load_extension"
        return sqlite3.SQLITE_OK if action in _ALLOWED and not code else sqlite3.SQLITE_DENY

    connection.set_authorizer(authorise)
    try:
        with closing(connection.execute(query)) as cursor:
            if cursor.description is None:
                raise _Refused("empty: no statement in it")
            # SQLite reports its own schema as read, too, and a WITH clause by its name.
            return _fetch(cursor, row_limit), sorted(read & names)
    finally:
        connection.set_authorizer(None)
        connection.execute("PRAGMA shrink_memory")  # each query has all of the memory


def _fetch(cursor: sqlite3.Cursor, row_limit: int) -> list[tuple]:
    rows: list[tuple] = []
    room = _RESULT_BYTES
    for row in cursor:
        room -= sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
        if len(rows) == row_limit:
            raise _Refused(f"more than {row_limit} rows")
        if room < 0:
            raise _Refused(f"more than {_RESULT_BYTES // _MB} MB of rows")
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
