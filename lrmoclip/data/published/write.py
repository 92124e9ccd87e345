"""Writes a scale's published data: domains, general benchmarks, replay text, and what was found
when training was compared with test; and says what each file holds and what was left out."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data.published import general, leakage, nl2sql, telecom
from lrmoclip.data.published.domain import Domain
from lrmoclip.data.published.leakage import Leak, Passage
from lrmoclip.data.published.sources import Missing, Source

Sets = dict[str, dict[str, list[dict]]]  # records by set and split
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
    replay = general.replay(source, settings["replay"], seed)
    trained = domains | {"replay": Domain({"train": replay}, {"train": len(replay)}, {"train": {}})}
    leaks, found = remove_leaks(trained, benchmarks, **settings["leakage"])

    sets = {name: domain.to_write() for name, domain in trained.items()} | benchmarks
    counts = counts | {name: domain.counts() for name, domain in trained.items()}
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


def remove_leaks(
    trained: dict[str, Domain], benchmarks: Sets, ngram: int, limit: float
) -> tuple[list[Leak], dict[str, dict[str, int]]]:
    """Take leaking records out of the training splits, count them in `left_out`, and look again.

    Every training split is compared with validation and test of every set. Returns all leaks, and
    by test set and kind the items that leaked before anything was removed. Raises UserError where
    more than the share `limit` of a test set leaks afterwards.
    """
    train = [p for name, domain in trained.items() for p in _passages(name, domain, "train")]
    held_out = ("validation", "test")
    test = [
        passage
        for name, domain in trained.items()
        for split in held_out
        for passage in _passages(name, domain, split)
    ]
    test += [
        leakage.of_text(f"{role}/{split}", document)
        for role, by_split in benchmarks.items()
        for split in held_out
        for document in by_split.get(split, ())
    ]
    common = leakage.common_ngrams(train, ngram)
    leaks = leakage.search(train, test, ngram, common)
    gone = {name: leakage.reasons(leaks, name) for name in trained}
    for name, domain in trained.items():
        kept = [record for record in domain.splits["train"] if record["id"] not in gone[name]]
        domain.splits["train"] = kept
        for kind, count in Counter(gone[name].values()).items():
            domain.left_out["train"][f"leaks by {kind}"] = count

    left = [passage for passage in train if passage.id not in gone[passage.set]]
    remaining = leakage.search(left, test, ngram, common)
    leakage.check(remaining, Counter(item.set for item in test), limit)
    return leaks, leakage.items(leaks)


def _domain(name: str, source: Source, settings: Mapping, seed: int) -> Domain:
    try:
        return _COLLECT[name](source, settings, seed)
    except Missing as missing:
        raise UserError(
            f"data.domains.{name}: {missing.reason}",
            "Name a folder that has it, --config data_dir=<folder>, or leave the domain out",
        ) from None


def _passages(name: str, domain: Domain, split: str) -> list[Passage]:
    """Passages of a split; those of train bear the set's name alone, as leakage.csv has it."""
    label = name if split == "train" else f"{name}/{split}"
    if name == "replay":
        return [leakage.of_text(label, record) for record in domain.splits.get(split, ())]
    return [leakage.of_domain(label, r, domain.databases) for r in domain.splits[split]]


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
