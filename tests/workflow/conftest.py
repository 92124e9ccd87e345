"""A folder in which the whole workflow ran."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.workflow import QUIET, REPRODUCE, RUNS, TINY, wait_for


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder in which the whole workflow ran, once killed on its way."""
    folder = tmp_path_factory.mktemp("work flow")  # with a space
    reproduce = [*REPRODUCE, "--config", f"scales={TINY}"]
    first = subprocess.Popen(reproduce, cwd=folder, start_new_session=True, **QUIET)
    wait_for((folder / RUNS / "base").exists, first)
    # The process and everything it started, at once: the lock stays behind.
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list((folder / ".snakemake" / "locks").glob("*"))
    again = subprocess.run(reproduce, cwd=folder, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "forgetting" in again.stdout and "results/tiny" in again.stdout
    return folder
