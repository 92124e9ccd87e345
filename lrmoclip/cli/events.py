"""What Snakemake does, a JSON line an event, for whoever draws it (`cli.course`)."""

import json
import logging
import os
import time

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

FILE = "LRMOCLIP_EVENTS"  # in the environment: where to write them


class Events(logging.Handler):
    """Writes down which jobs are planned, begin, end and fail."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, until the end

    def emit(self, record: logging.LogRecord) -> None:
        found = self.of(record)
        if found is not None:
            self.file.write(json.dumps(found | {"time": time.time()}) + "\n")

    def of(self, record: logging.LogRecord) -> dict | None:
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            jobs = {rule: count for rule, count in record.stats.items() if rule != "total"}
            return {"event": "planned", "jobs": jobs}
        if event == LogEvent.JOB_INFO:
            about = {"rule": record.rule_name, "of": dict(record.wildcards or {})}
            log = next(iter(record.log or ()), None)
            return {"event": "began", "job": record.jobid, "log": log and str(log), **about}
        if event == LogEvent.JOB_FINISHED:
            return {"event": "ended", "job": record.job_id}
        if event == LogEvent.JOB_ERROR:
            return {"event": "failed", "job": record.jobid}
        return None


def watch() -> None:
    """Begin to write, where the environment says so; the processes that this one starts do not."""
    if path := os.environ.pop(FILE, None):
        logger.addHandler(Events(path))
