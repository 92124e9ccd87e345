"""`make reproduce`: runs the workflow, going on after an interruption, then prints the table."""

import subprocess
import sys
from pathlib import Path

import psutil

from lrmoclip.claims import Claim
from lrmoclip.errors import UserError

SNAKEMAKE = (sys.executable, "-m", "snakemake")
FLAGS = ("--cores", "all", "--rerun-incomplete", "--show-failed-logs", "--quiet", "rules")


def main(options: list[str]) -> int:
    """Run Snakemake's default target with further `options`; returns its exit status, or 2 where
    another Snakemake is at work in this folder or nothing can be written."""
    root = Path.cwd()
    try:
        check(root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if any((root / ".snakemake" / "locks").glob("*")):
        # Left by a killed run: nobody holds it, as was just seen.
        subprocess.run([*SNAKEMAKE, "--unlock", "--quiet", "all", *options])
    status = wait(subprocess.Popen([*SNAKEMAKE, *FLAGS, *options]))
    if status == 0:
        print(flush=True)
        show = [sys.executable, "-m", "lrmoclip", "show", "--results", "results"]
        status = subprocess.run(show).returncode
    return status


def wait(process: subprocess.Popen) -> int:
    """The exit status. Ctrl-C reaches Snakemake, too, which ends its jobs and its lock in order."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def check(root: Path) -> None:
    """Raise UserError for what Snakemake would say in many lines."""
    if other := running_snakemake(root):
        raise UserError(f"{root}: Snakemake is at work here, process {other}", "Wait for it")
    Claim(root / "results" / "table1.csv", lambda _: None).release()  # can it be written?


def running_snakemake(root: Path) -> int | None:
    """The process id of a Snakemake whose working directory is `root`."""
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        words = process.info["cmdline"] or []
        is_snakemake = any(Path(word).name == "snakemake" for word in words[:4])
        if is_snakemake and process.info["cwd"] == str(root):
            return process.info["pid"]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
