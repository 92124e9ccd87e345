"""`make reproduce`: runs the workflow, going on after an interruption, then prints the table."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from lrmoclip.cli import events
from lrmoclip.cli.course import Course
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import Hold

SNAKEMAKE = (sys.executable, "-m", "snakemake")
FLAGS = ("--cores", "all", "--rerun-incomplete", "--quiet", "rules")
MARK = "LRMOCLIP_WORKFLOW"  # in the environment of a workflow's jobs: the folder it runs in
PATIENCE_S = 20  # of a job that is asked to end
TALK, EVENTS = Path(".snakemake/reproduce.log"), Path(".snakemake/reproduce.jsonl")
DRY = {"-n", "--dry-run", "--dryrun"}
LAST = 20  # lines of Snakemake's talk that are shown where nothing else says why it failed


def main(options: list[str]) -> int:
    """Run Snakemake's default target with further `options`; returns its exit status, or 2 where
    another Snakemake is at work in this folder or nothing can be written.

    Jobs that a killed Snakemake left behind are ended first: it would start them anew.
    """
    root = Path.cwd()
    try:
        check(root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    end_orphans(root)
    if any((root / ".snakemake" / "locks").glob("*")):
        # Left by a killed run: nobody holds it, as was just seen.
        subprocess.run([*SNAKEMAKE, "--unlock", "--quiet", "all", *options])
    if DRY & set(options):
        return subprocess.run([*SNAKEMAKE, *FLAGS, *options]).returncode
    status = run([*SNAKEMAKE, *FLAGS, *options])
    if status == 0:
        print(flush=True)
        show = [sys.executable, "-m", "lrmoclip", "show", "--results", "results"]
        status = subprocess.run(show).returncode
    return status


def run(command: list[str]) -> int:
    """The exit status of Snakemake, whose course is drawn while its talk goes to a file; what it
    failed of is shown last."""
    from rich.console import Console

    from lrmoclip.cli import screen

    console = Console(stderr=True)
    TALK.parent.mkdir(exist_ok=True)
    EVENTS.unlink(missing_ok=True)
    print(f"What Snakemake says goes to {TALK}", file=sys.stderr)
    with open(TALK, "w", encoding="utf-8") as talk:
        environment = os.environ | {events.FILE: str(EVENTS.resolve())}
        process = subprocess.Popen(command, stdout=talk, stderr=talk, env=environment)
    course, told = Course(EVENTS), False

    def ended(seconds: float) -> bool:
        nonlocal told
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        except KeyboardInterrupt:  # reaches Snakemake, too, which ends its jobs in order
            if not told:
                console.print("Stopping; the same command goes on from here")
            told = True
            return False
        return True

    screen.draw(course, ended, console)
    course.read()
    if process.returncode:
        for line in reasons(TALK.read_text(encoding="utf-8", errors="replace").splitlines()):
            print(line, file=sys.stderr)
    else:
        done = f"{course.done} jobs done" if course.total else "Nothing to do"
        print(f"{done}: all results are there", file=sys.stderr)
    return process.returncode


def reasons(talk: list[str]) -> list[str]:
    """Why Snakemake failed: the lines of ours that its talk ends with, else its last ones."""
    talk = [line for line in talk if line.strip()]
    ours = [line for line in talk if line.startswith(("log: ", "error: "))]
    return ours or talk[-LAST:]


def check(root: Path) -> None:
    """Raise UserError for what Snakemake would say in many lines."""
    if other := running_snakemake(root):
        raise UserError(f"{root}: Snakemake is at work here, process {other}", "Wait for it")
    Hold(root / "results" / "table1.csv", lambda _: None).release()  # can it be written?


def running_snakemake(root: Path) -> int | None:
    """The process id of a Snakemake whose working directory is `root`."""
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        words = process.info["cmdline"] or []
        is_snakemake = any(Path(word).name == "snakemake" for word in words[:4])
        if is_snakemake and process.info["cwd"] == str(root):
            return process.info["pid"]
    return None


def orphans(root: Path) -> list[psutil.Process]:
    """Live processes of jobs that a workflow in `root` started; asked where none is at work."""
    mine = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    found = psutil.process_iter(["pid", "environ"])
    return [
        process
        for process in found
        if process.pid not in mine and (process.info["environ"] or {}).get(MARK) == str(root)
    ]


def end_orphans(root: Path) -> None:
    """End them in order, or else by force, and say so."""
    left = orphans(root)
    if not left:
        return
    print(f"Ending {len(left)} processes of jobs that a killed Snakemake left", file=sys.stderr)
    for process in left:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(left, PATIENCE_S)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended by itself
        send()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
