"""Where an artefact comes from: config hash, git commit, versions, hardware."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lrmoclip.core import files

_PACKAGES = ("torch", "transformers", "lm_eval", "datasets", "peft", "pandas", "snakemake")


def stamp(**extra) -> dict:
    """Provenance of what this process makes, with `extra` entries (config hash, seed) in front."""
    versions = {"python": platform.python_version()} | versions_of(*_PACKAGES)
    made = {"commit": _commit(), "code": _code(), "hardware": hardware(), "versions": versions}
    return {**extra, **made}


def is_same(found: dict, made: dict) -> bool:
    """Whether a record says what the stamp `made` says, which this process would give: of the same
    inputs, by the same code and versions, on the same machine. The commit may be another where it
    changed no code."""
    return all(found.get(key) == value for key, value in made.items() if key != "commit")


@cache
def hardware() -> str:
    """The device that computes: its name and how many of them, as one line."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"cpu: {_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@cache
def versions_of(*packages: str) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def _code() -> str:
    """Short hash of this package's sources, as they are, committed or not."""
    root, seen = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        seen.update(f"{path.relative_to(root).as_posix()} {files.sha256(path)}\n".encode())
    return seen.hexdigest()[:16]


@cache
def _commit() -> str:
    """The commit of this checkout, `+changes` if files differ from it, or `unknown`."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
