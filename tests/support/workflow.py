"""The real Snakefile, run at a tiny scale."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support import ROOT

TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
REPRODUCE = [sys.executable, "-m", "lrmoclip.cli.reproduce", "--snakefile", str(ROOT / "Snakefile")]
TABLES = ["metrics", "table1", "general", "regimes", "costs", "savings", "warnings"]
RUNS = "results/tiny/qwen3-s0"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def snakemake(
    folder: Path, *targets: str, flags: tuple = (), scale: Path = TINY
) -> subprocess.CompletedProcess:
    command = [*SNAKEMAKE, "--cores", "2", *flags, "--config", f"scales={scale}", "--", *targets]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def wait_for(event: Callable[[], object], process: subprocess.Popen) -> None:
    """However long it takes, as long as the process that is to bring it about is alive."""
    while not event():
        assert process.poll() is None, "the process ended before"
        time.sleep(0.05)


def jobs(done: subprocess.CompletedProcess) -> set[str]:
    return set(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", done.stderr))
