"""What a workflow asks a cluster for, by a plan.csv. Snakefiles import it: nothing heavy here."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

LOST = 1.6  # times the memory that is predicted: what a process took at most (`train.memory.ROOM`)
PROCESS_GB = 4  # of the host, of a process whose tensors are on a GPU: its libraries
SLOWER, START_MINUTES = 2.0, 10  # times the predicted time, and to start: a killed job is lost


class Asked(NamedTuple):
    """memory_mb: of the host. A process of a GPU first reads the base there, its own copy."""

    memory_mb: int
    runtime_minutes: int
    gpus: int


def planned(path: Path) -> dict[tuple[str, str, str, str], Asked]:
    """What to ask for a job, by (rule, base, domain, method) as the file has them, on the first
    device that it has. Empty where there is no such file."""
    if not Path(path).exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    checkpoints = {row["base"]: float(row["disk_gb"]) for row in rows if row["rule"] == "base"}
    found: dict[tuple[str, str, str, str], Asked] = {}
    for row in rows:
        gpus = int(row["gpus"])
        on_host = float(row["peak_memory_gb"])
        if gpus:
            on_host = gpus * (checkpoints[row["base"]] + PROCESS_GB)
        minutes = SLOWER * 60 * float(row["wall_hours"]) / int(row["jobs"]) + START_MINUTES
        key = (row["rule"], row["base"], row["domain"], row["method"])
        found.setdefault(key, Asked(math.ceil(LOST * 1000 * on_host), math.ceil(minutes), gpus))
    return found
