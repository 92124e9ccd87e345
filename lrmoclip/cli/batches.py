"""Which runs of a workflow are there, and which jobs make the others.

One process trains, or scores, several seeds in turn, for starting costs as much as a small run.
Such a job leaves `trained.<seeds>.json` (or `scored.`) beside the folders of its seeds. What is
there stays a job of its own when more seeds are asked for, so that growing a list runs what is
new."""

import json
from pathlib import Path

from lrmoclip.methods import REFERENCE
from lrmoclip.report.kinds import METRICS_FILE, RUN_FILE, SAMPLES, SCORED, TRAINED

# What the folder of a seed holds when it is trained, and scored.
WHOLE = {
    TRAINED: (RUN_FILE, "training.csv", "model/manifest.json", "model/model.safetensors"),
    SCORED: (METRICS_FILE, SAMPLES),
}


def batches(folder: Path, kind: str, seeds: list[int], size: int) -> list[list[int]]:
    """The seeds of each job of `kind` (TRAINED, SCORED) that has to do with one of `seeds`: jobs
    that are done, whatever else they hold, then new ones of at most `size` seeds.

    A job of which a seed was lost is not done: what says so is removed, and its seeds are asked
    for anew, of which the command makes those that are not there.
    """
    found, covered = [], set()
    for path in sorted(Path(folder).glob(f"{kind}.*.json")):
        held = seeds_of(path.name.split(".")[1])
        if not covered.isdisjoint(held) or set(seeds).isdisjoint(held):
            continue
        if all((folder / f"seed{s}" / name).exists() for s in held for name in WHOLE[kind]):
            found.append(held)
            covered |= set(held)
        else:
            path.unlink()
    new = [seed for seed in seeds if seed not in covered]
    return found + [new[start : start + size] for start in range(0, len(new), size)]


def named(seeds: list[int]) -> str:
    """As they stand in a file's name."""
    return "_".join(map(str, seeds))


def seeds_of(name: str) -> list[int]:
    return [int(word) for word in name.split("_")]


def timed(folder: Path, methods: list[str]) -> dict[int, list[str]]:
    """The methods in each file of timings of a base and domain, `timings.<n>.json`, by n: those
    that are there, and one more for those of `methods` that are in none, which the method that
    costs are held against joins."""
    found = {}
    for path in sorted(Path(folder).glob("timings.*.json")):
        try:
            found[int(path.name.split(".")[1])] = sorted(json.loads(path.read_text())["step_s"])
        except (ValueError, KeyError, TypeError):  # whoever reads it says what is wrong with it
            continue
    known = {method for several in found.values() for method in several}
    if new := set(methods) - known:
        joined = new | ({REFERENCE} if REFERENCE in methods or REFERENCE in known else set())
        found[max(found, default=0) + 1] = sorted(joined)
    return found
