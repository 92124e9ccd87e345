"""What `make reproduce` says while it runs, on a terminal and without one."""

import os
import pty
import subprocess

from lrmoclip.cli.reproduce import EVENTS, TALK
from tests.support.workflow import REPRODUCE, TINY

DATA = ["--config", f"scales={TINY}", "--", "results/tiny/data"]


def on_a_terminal(command: list[str], folder) -> tuple[int, str]:
    """(exit status, all that was on the screen)."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(), said.decode()


def test_a_terminal_has_a_bar_and_snakemakes_talk_goes_to_a_file(tmp_path):
    _, said = on_a_terminal([*REPRODUCE, *DATA], tmp_path)

    assert f"What Snakemake says goes to {TALK}" in said
    assert "all jobs" in said and "1 jobs done" in said
    assert "Building DAG" not in said and "Building DAG" in (tmp_path / TALK).read_text()
    assert '"rule": "data"' in (tmp_path / EVENTS).read_text()


def test_a_run_with_nothing_to_do_says_so(finished):
    command = [*REPRODUCE, "--config", f"scales={TINY}"]

    done = subprocess.run(command, cwd=finished, capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stderr.splitlines()[1:] == ["Nothing to do: all results are there"]
    assert "forgetting" in done.stdout


def test_what_is_wrong_before_any_job_is_the_last_line(tmp_path):
    for chosen, words in {"scales=none": "unknown scale 'none'", "sclaes=x": "unknown key"}.items():
        command = [*REPRODUCE, "--config", chosen]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

        assert done.returncode != 0
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ") and words in last
        assert "Traceback" not in done.stderr


def test_what_snakemake_itself_refuses_is_shown(tmp_path):
    command = [*REPRODUCE, "--config", f"scales={TINY}", "--", "results/tiny/nonsense"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode != 0
    assert "MissingRuleException" in done.stderr and "results/tiny/nonsense" in done.stderr
