"""Runs one query of a model, read-only and within limits, in a process that ends where it exceeds
them. One such process (`sql_worker`) serves all queries, until one ends it or its parent ends."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

from lrmoclip.core.errors import UserError

_PROGRAM = Path(__file__).with_name("sql_worker.py")
_PATIENCE_S = 600.0  # of wall-clock time: a machine so busy is no mistake of a query
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class QueryFailed(Exception):
    """A query that gave no answer; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Result:
    """`rows` as SQLite gives them; `tables`: which of the database's tables and views were read."""

    rows: list[tuple]
    tables: frozenset[str]


def run(
    database: Path, query: str, *, time_limit_s: float = 2.0, row_limit: int = 10_000
) -> Result:
    """The result of one read-only `query`; text that is not UTF-8 keeps its bytes as surrogates.

    Raises QueryFailed for anything that is not a single SELECT (WITH, VALUES and EXPLAIN pass), for
    errors of SQLite, and past a limit: `time_limit_s` seconds of CPU time, `row_limit` rows, 100 kB
    a cell, 50 MB in all (a number counts 8 bytes), 200 MB of SQLite's memory, temporary tables
    included. Raises UserError where the database is missing, or the machine does not let the query
    run.

    A double-quoted identifier that SQLite does not know is a string literal to it: such a query
    is valid here, as in every evaluation that runs SQLite, and is found wrong by its rows.
    """
    version = version_of(database)
    try:
        rows, tables, reason = _worker(os.getpid()).ask(
            database="file://" + quote(os.fsencode(os.path.abspath(database))),
            version=version,
            query=query,
            cpu_s=time_limit_s,
            wall_s=_PATIENCE_S,
            rows=row_limit,
        )
    except _Ended as end:
        if end.status == -signal.SIGPROF:
            raise QueryFailed(f"ran longer than {time_limit_s:g} s of CPU time") from None
        if -end.status in _CRASHES:
            raise QueryFailed(f"crashes SQLite ({signal.Signals(-end.status).name})") from None
        if end.status == -signal.SIGALRM:
            raise UserError(
                f"{database}: a query had not its {time_limit_s:g} s of CPU time in "
                f"{_PATIENCE_S:g} s",
                "Run less at a time.",
            ) from None
        raise UserError(
            f"{database}: the process that runs SQL was ended (status {end.status})",
            "Look for what ended it, then start again.",
        ) from None
    if reason:
        raise QueryFailed(reason)
    return Result(list(map(tuple, rows)), frozenset(tables))


def execute(
    database: Path, query: str, *, time_limit_s: float = 2.0, row_limit: int = 10_000
) -> list[tuple]:
    """The rows of `run`."""
    return run(database, query, time_limit_s=time_limit_s, row_limit=row_limit).rows


def version_of(database: Path) -> str:
    """Another one where the file has changed. Raises UserError where there is none."""
    try:
        found = os.stat(database)
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise UserError(f"No database at {database}", "Make the data set first.")
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


class _Ended(Exception):
    """The worker ended with `status` (of `Popen.wait`) before it answered."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Worker:
    """A process of `sql_worker`, started when it is needed and again where it ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._one_at_a_time = threading.Lock()

    def ask(self, **request: object) -> list:
        with self._one_at_a_time:
            process = self._running()
            try:
                line = self._exchange(process, json.dumps(request).encode() + b"\n")
            except BaseException:  # Ctrl-C: the next query must not get this one's answer
                process.kill()
                process.wait()
                raise
            if not line.endswith(b"\n"):
                raise _Ended(process.wait())
        text = line.decode(errors="surrogatepass")
        return json.loads(text, object_hook=lambda blob: bytes.fromhex(blob["hex"]))

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    def _exchange(self, process: subprocess.Popen, request: bytes) -> bytes:
        """The line of the answer, cut off where the process ended."""
        with suppress(BrokenPipeError):
            process.stdin.write(request)
            process.stdin.flush()
        return process.stdout.readline()


@cache
def _worker(parent: int) -> _Worker:
    """The worker of this process; one that was forked off must not speak to its parent's."""
    return _Worker()
