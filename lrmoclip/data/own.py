"""A domain of the user's own: a folder of records, JSON Lines as `records.Record` describes them,
in train.jsonl, test.jsonl and, if there is one, validation.jsonl; of SQL with
databases/<name>.sqlite."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import sqlglot

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data import leakage, records
from lrmoclip.data.domain import Domain, assemble
from lrmoclip.data.separation import remove_leaks
from lrmoclip.data.sql_execution import QueryFailed, execute

SPLITS = ("train", "validation", "test")
NGRAM = 13  # words in a row, as in GPT-3's report


def write(
    target: Path, source: Path, name: str, kind: str, sizes: dict, others: records.Data, seed: int
) -> dict:
    """Write the domain `name` into the folder `target`, below its name; returns what the manifest
    is to say of it.

    kind, sizes (by split, None for all): of the scale's config. others: the scale's own data, with
    whose test items training is compared, too. Training records that leak into a test set are left
    out and listed in leakage.csv. Raises UserError with file and line of a record that can't be
    used.
    """
    domain = assemble(name, _read(source, kind), sizes, seed)
    domain.databases = {key: _database(source, key) for key in sorted(_asked(domain))}
    leaks, found = remove_leaks({name: domain}, _held_out(others), NGRAM, limit=0.0)
    for key, path in domain.databases.items():
        copy = target / name / "databases" / f"{key}.sqlite"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for split, written in domain.to_write().items():
        files.write_jsonl(target / name / f"{split}.jsonl", written)
    files.write_text(target / name / "leakage.csv", leakage.to_csv(leaks))
    counts = domain.counts()
    sets = {s: {"records": len(r), **counts[s]} for s, r in domain.splits.items()}
    seen = _in_replay(others, name, domain)
    return {"sets": {name: sets}, "leakage": found, "tested_in_replay": seen}


def in_words(name: str, about: dict) -> str:
    """What was left out, for the screen."""
    train = about["sets"][name]["train"]
    reasons = ", ".join(f"{count} {kind}" for kind, count in train["left_out"].items())
    gone = sum(train["left_out"].values())
    total = train["records"] + gone
    words = f"{name}: {train['records']} of {total} training records"
    words += f", {gone} left out ({reasons}; {name}/leakage.csv)" if gone else ", none left out"
    if seen := about["tested_in_replay"]:
        words += f"; {seen} of its test items stand in the general text that is replayed"
    return words


def _read(source: Path, kind: str) -> dict[str, list[dict]]:
    """The records of each split that has a file, with what leakage is judged on."""
    if not source.is_dir():
        raise UserError(f"{source}: no such folder", "Mend domains.<name>.folder in the config")
    pools = {}
    for split in SPLITS:
        path = source / f"{split}.jsonl"
        if split == "validation" and not path.exists():
            continue
        if not path.exists():
            raise UserError(f"{path}: no such file", "A domain has train.jsonl and test.jsonl")
        pools[split] = [dict(record) for record in records.read(path, records.NEEDED[kind])]
        for number, record in enumerate(pools[split], start=1):
            if kind == "sql":
                _check_sql(source, record, f"{path}, line {number}")
            record |= {"question": record["prompt"]}
            record |= {"prose": "" if kind == "sql" else record["answer"]}
    return pools


def _check_sql(source: Path, record: dict, place: str) -> None:
    """Its queries run, and say whether gold gives rows."""
    record.setdefault("alternatives", [])
    database = _database(source, record["database"])
    for query in (record["answer"], *record["alternatives"]):
        try:
            leakage.normal_sql(query)
            rows = execute(database, query, time_limit_s=60.0)  # trusted: it may take its time
        except (QueryFailed, sqlglot.errors.SqlglotError) as failure:
            reason = getattr(failure, "reason", None) or str(failure).splitlines()[0]
            raise UserError(f"{place}: {query!r} fails ({reason})", "Mend the query") from None
        if query == record["answer"]:
            record["empty"] = not rows


def _database(source: Path, name: str) -> Path:
    path = source / "databases" / f"{name}.sqlite"
    if not path.is_file():
        raise UserError(f"{path}: no such database", "Records name it by its file's stem")
    return path


def _asked(domain: Domain) -> set[str]:
    every = (record for split in domain.splits.values() for record in split)
    return {record["database"] for record in every if "database" in record}


def _held_out(others: records.Data) -> dict[str, dict[str, list[dict]]]:
    """The validation and test items of the scale's data, by set and split."""
    found: dict[str, dict[str, list[dict]]] = {}
    for file in others.about["files"]:
        task, _, name = file.partition("/")
        if name in ("validation.jsonl", "test.jsonl"):
            found.setdefault(task, {})[name.removesuffix(".jsonl")] = _lines(others.file(file))
    return found


def _in_replay(others: records.Data, name: str, domain: Domain) -> int:
    """Test items of the domain that leak into the text which replay and the Fisher read."""
    file = records.split_of("replay", "train")
    if file not in others:
        return 0
    replayed = [leakage.of_text("replay", record) for record in _lines(others.file(file))]
    tested = [leakage.of_domain(name, r, domain.databases) for r in domain.splits["test"]]
    common = leakage.common_ngrams(replayed, NGRAM)
    return len({leak.test_id for leak in leakage.search(replayed, tested, NGRAM, common)})


def _lines(path: Path) -> Iterable[dict]:
    return [json.loads(line) for line in files.read_text(path).split("\n") if line]
