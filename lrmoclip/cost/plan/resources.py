"""What a workflow asks a cluster for, by a plan.csv. Snakefiles import it: nothing heavy here."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

LOST = 1.6  # times the memory that is predicted: what a process took at most (`train.memory.ROOM`)
SLOWER, START_MINUTES = 2.0, 10  # times the predicted time, and to start: a killed job is lost


class Asked(NamedTuple):
    """memory_mb: of the host, which first reads all that moves onto GPUs."""

    memory_mb: int
    runtime_minutes: int
    gpus: int


def planned(path: Path) -> dict[tuple[str, str, str, str], Asked]:
    """What to ask for a job, by (rule, base, domain, method) as the file has them, on the first
    device that it has. Empty where there is no such file."""
    if not Path(path).exists():
        return {}
    found: dict[tuple[str, str, str, str], Asked] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            gpus = int(row["gpus"])
            memory = LOST * 1000 * float(row["peak_memory_gb"]) * max(1, gpus)
            minutes = SLOWER * 60 * float(row["wall_hours"]) / int(row["jobs"]) + START_MINUTES
            key = (row["rule"], row["base"], row["domain"], row["method"])
            found.setdefault(key, Asked(math.ceil(memory), math.ceil(minutes), gpus))
    return found
