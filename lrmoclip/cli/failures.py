"""What a failed workflow leaves on the screen, last: of each failed job the path of its log and the
line that it ended with."""

import atexit
import logging
import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

SILENT = "it ended without a word: was it killed, or out of memory?"


class Failures(logging.Handler):
    """Remembers the logs of jobs that failed, and forgets those that a retry finished."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, tuple[str, list[str]]] = {}  # rule and logs by job

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_ERROR:
            self.jobs[record.jobid] = (record.rule_name, list(record.log or ()))
        elif event == LogEvent.JOB_FINISHED:
            self.jobs.pop(record.job_id, None)

    def show(self) -> None:
        for rule, logs in self.jobs.values():
            for line in in_words(rule, logs):
                print(line, file=sys.stderr)


def watch() -> Failures:
    """Begin to remember; `show_last` is for the workflow's `onerror`."""
    failures = Failures()
    logger.addHandler(failures)
    return failures


def show_last(failures: Failures) -> None:
    """Print the failures when all else is said: Snakemake, too, has a word after `onerror`."""
    atexit.register(failures.show)


def in_words(rule: str, logs: list[str]) -> list[str]:
    """The line that a job of `rule` ended with, as its first log has it, and where the log is."""
    if not logs:
        return [f"error: {rule}: {SILENT}"]
    try:
        lines = Path(logs[0]).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # A progress bar goes back to the line's beginning.
    said = [line.rsplit("\r", 1)[-1].strip() for line in lines if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    if errors:
        last = errors[-1]
    elif any(line.startswith("Traceback") for line in said):
        last = f"error: {rule}: a bug of ours, please report it: {said[-1]}"
    else:
        last = f"error: {rule}: {SILENT}"
    return [f"log: {logs[0]}", last]
