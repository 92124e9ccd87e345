"""Writes a scale's published data: domains, general benchmarks, replay text, and what was found
when training was compared with test; and says what each file holds and what was left out."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data import leakage
from lrmoclip.data.domain import Domain
from lrmoclip.data.published import general, nl2sql, telecom
from lrmoclip.data.published.sources import Missing, Source
from lrmoclip.data.separation import Sets, remove_leaks

_COLLECT = {"telecom": telecom.collect, "nl2sql": nl2sql.geography, "sqleval": nl2sql.sqleval}


def write(folder: Path, settings: Mapping, source: Source) -> dict:
    """Write the sets into a folder; returns what its manifest is to say of them.

    settings: the scale's `data`. Training and replay records that leak into a test set are removed
    and listed in leakage.csv. Raises UserError where a domain is missing, a size is not there, or
    leaks remain above `leakage.limit`.
    """
    seed = settings["seed"]
    domains = {
        name: _domain(name, source, chosen, seed) for name, chosen in settings["domains"].items()
    }
    benchmarks, missing, counts = general.collect(source, settings["general"], seed)
    replay, held_out = general.replay(source, settings["replay"], seed)
    trained = domains | {"replay": Domain({"train": replay}, {"train": len(replay)}, {"train": {}})}
    leaks, found = remove_leaks(trained, benchmarks, **settings["leakage"])

    sets = {name: domain.to_write() for name, domain in trained.items()} | benchmarks
    counts = counts | {name: domain.counts() for name, domain in trained.items()}
    sets["held_out"], counts["held_out"] = {"test": held_out}, {"test": {}}
    for name, domain in domains.items():
        _copy_databases(domain.databases, folder / name / "databases")
    files.write_text(folder / "leakage.csv", leakage.to_csv(leaks))
    return {
        "source": source.kind,
        "missing": missing,
        "chance": _chance(sets, domains, benchmarks),
        "leakage": {**settings["leakage"], "items": found},
        "sets": _write_sets(folder, sets, counts),
    }


def _domain(name: str, source: Source, settings: Mapping, seed: int) -> Domain:
    try:
        return _COLLECT[name](source, settings, seed)
    except Missing as missing:
        raise UserError(
            f"data.domains.{name}: {missing.reason}",
            "Name a folder that has it, --config data_dir=<folder>, or leave the domain out",
        ) from None


def _chance(sets: Sets, domains: Mapping, benchmarks: Mapping) -> dict[str, float]:
    """Mean of 1 / options over the test items of each set where an answer is chosen."""
    found = {role: general.chance(role, by_split["test"]) for role, by_split in benchmarks.items()}
    for name in domains:
        options = [len(r["choices"]) for r in sets[name]["test"] if "choices" in r]
        found[name] = sum(1 / count for count in options) / len(options) if options else None
    return {name: value for name, value in found.items() if value is not None}


def _write_sets(folder: Path, sets: Sets, counts: Mapping) -> dict[str, dict[str, dict]]:
    """Write the files of all sets; returns the manifest's `sets`."""
    described: dict[str, dict[str, dict]] = {}
    for name, by_split in sets.items():
        described[name] = {}
        for split, records in by_split.items():
            files.write_jsonl(folder / name / f"{split}.jsonl", records)
            described[name][split] = {"records": len(records), **counts[name][split]}
    return described


def _copy_databases(databases: Mapping[str, Path], target: Path) -> None:
    for name, path in databases.items():
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / f"{name}.sqlite")
