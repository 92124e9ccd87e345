"""A data folder in the published formats, with a handful of records written for it."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import ROOT

REAL = ROOT.parent / "shared" / "data"
CATEGORIES = ("Lexicon", "Research overview", "Standards specifications")
SCHEMA = ["CREATE TABLE river (name TEXT, length INT)"]


def seal(folder: Path) -> None:
    """Write SHA256SUMS of all files."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in found
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def put(folder: Path, name: str, records: list[dict]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def teleqna(number: int) -> dict:
    """A question with four options or five; every tenth has two, which flags it."""
    ways = ("polling", "paging", "hopping", "sounding", "turning")
    options = [f"{number} by {way}" for way in ways]
    return {
        "id": f"teleqna-{number:05d}",
        "question": f"How is beam {number} found? [3GPP Release {14 + number % 5}]",
        "choices": options[: {9: 2, 5: 5}.get(number % 10, 4)],
        "answer": number % 2,
        "explanation": "",
        "category": CATEGORIES[number % 3],
    }


def query(key: str, question: str, sql: str, rows: int, **more) -> dict:
    return {
        "id": key,
        "db_id": "rivers",
        "question": question,
        "sql": sql,
        "sql_alternatives": [],
        "n_result_rows": rows,
        **more,
    }


def geography() -> dict[str, list[dict]]:
    """By file; the query split cuts across the files."""

    def longer(key: str, miles: int, rows: int, split: str) -> dict:
        sql = f"SELECT RIVERalias0.NAME FROM RIVER AS RIVERalias0 WHERE LENGTH > {miles}"
        return query(key, f"rivers over {miles} miles", sql, rows, query_id=1, query_split=split)

    return {
        "train": [longer("geo-0", 100, 3, "train"), longer("geo-1", 900, 0, "test")],
        "dev": [longer("geo-2", 200, 2, "train"), longer("geo-3", 250, 2, "dev")],
        "test": [longer("geo-4", 300, 1, "train"), longer("geo-5", 310, 1, "dev")],
    }


def sqleval() -> dict[str, list[dict]]:
    def named(number: int, instructions: str = "") -> dict:
        sql = f"SELECT length + {number} FROM river WHERE name = 'Ob'"
        question = f"How long is the Ob, plus {number}?"
        return query(f"sqleval-{number}", question, sql, 1, instructions=instructions)

    return {"train": [named(n) for n in range(10)], "test": [named(10, "Use exact names")]}


def arc(split: str, count: int) -> list[dict]:
    return [
        {
            "id": f"arc_easy-{split}-{number}",
            "question": f"Which {split} stone number {number} floats?",
            "choices": ["granite", "pumice", "flint", "slate"],
            "answer": 1,
        }
        for number in range(count)
    ]


def build(folder: Path) -> Path:
    rows = [teleqna(number) for number in range(60)]
    held = {f"teleqna-{number:05d}" for number in range(0, 60, 5)}
    put(folder, "telecom/train.jsonl", [r for r in rows if r["id"] not in held])
    put(folder, "telecom/test.jsonl", [r for r in rows if r["id"] in held])
    flagged = [{"id": r["id"], "issues": ["few"]} for r in rows if len(r["choices"]) < 4]
    put(folder, "telecom/flagged.jsonl", flagged)
    for name, by_split in (("geography", geography()), ("sqleval", sqleval())):
        for split, records in by_split.items():
            put(folder, f"nl2sql/{name}/{split}.jsonl", records)
    put(folder, "nl2sql/schemas.jsonl", [{"id": "rivers", "create_table": SCHEMA}])
    for split, count in (("train", 20), ("validation", 4), ("test", 4)):
        put(folder, f"easy/arc_easy/{split}.jsonl", arc(split, count))
    (folder / "nl2sql/databases").mkdir()
    with closing(sqlite3.connect(folder / "nl2sql/databases/rivers.sqlite")) as connection:
        connection.executescript(
            f"{SCHEMA[0]}; INSERT INTO river VALUES ('Ob', 400), ('Po', 300), ('Ems', 200);"
        )
    seal(folder)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return build(tmp_path / "published")


@pytest.fixture(scope="session")
def real() -> Path:
    if not (REAL / "SHA256SUMS").is_file():
        pytest.skip("the folder of published data, shared/data beside the repository, is absent")
    return REAL
