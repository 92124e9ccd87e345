"""The micro world: reproducible to the byte, without leaks, and answerable."""

import hashlib
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lrmoclip.core import files
from lrmoclip.data.micro import facts, general, nl2sql, world
from lrmoclip.data.micro import tokenizer as words
from lrmoclip.data.micro.words import JARGON, NUMBER_COLUMNS, TEXT_COLUMNS
from lrmoclip.data.sql_execution import execute
from tests.support.made import read_lines

FACTUAL = ("micro_mmlu", "micro_gpqa", "micro_math", "telecom")
CHOICE = (*FACTUAL, "micro_bbh")
ITEMS = (*CHOICE, "micro_recite", "nl2sql")
HELD_OUT = ("validation", "test")
TRAINING = ("pretraining", "telecom", "nl2sql", "replay")
VOCABULARY, CONTEXT = 8192, 512

# Of the *.jsonl and *.sql files of the world below. Where a change of the generator is meant, copy
# the digest that the failing test prints and make the kept reference results anew: they belong to
# another world. Where no change is meant, the world is no longer the same on every machine.
PINNED = "92cbf3a92f58551d18ce16a5638093316ddccfbce83c79eea2a1f63b7a0fb871"


def digest(folder: Path) -> str:
    """Of names and bytes of all text; a SQLite file's bytes depend on SQLite's version."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".jsonl", ".sql")):
        total.update(f"{path.relative_to(folder).as_posix()} {files.sha256(path)}\n".encode())
    return total.hexdigest()


def read(folder: Path, name: str, *splits: str) -> list[dict]:
    return [r for split in splits for r in read_lines(folder / name / f"{split}.jsonl")]


def question(record: dict) -> str:
    return record["prompt"].split(" . question : ")[1]


def database(folder: Path, name: str, suffix: str = ".sqlite") -> Path:
    return folder / "nl2sql" / "databases" / f"{name}{suffix}"


@pytest.fixture(scope="module")
def many_facts(tmp_path_factory, tiny_world_sizes) -> Path:
    """A world whose text is long enough, and of facts alone, for every training record to occur."""
    folder = tmp_path_factory.mktemp("facts") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "MIXTURE", {"mmlu": 0.2, "gpqa": 0.25, "math": 0.55})
        world.write(folder, seed=3, sizes={**tiny_world_sizes, "pretraining": 40_000})
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return words.build(VOCABULARY, CONTEXT)


def test_the_same_seed_gives_the_same_bytes(tiny_world, tiny_world_sizes, tmp_path):
    world.write(tmp_path / "again", seed=3, sizes=tiny_world_sizes)

    assert digest(tmp_path / "again") == digest(tiny_world)


def test_another_seed_gives_another_world(tiny_world, tiny_world_sizes, tmp_path):
    world.write(tmp_path / "other", seed=4, sizes=tiny_world_sizes)

    for name in ("pretraining/train.jsonl", "telecom/test.jsonl", "nl2sql/databases/db0.sql"):
        assert files.sha256(tmp_path / "other" / name) != files.sha256(tiny_world / name)


def test_the_world_is_the_same_on_every_machine(tiny_world):
    found = digest(tiny_world)

    assert found == PINNED, f"the world changed: read the comment at PINNED. New digest: {found}"


def test_sizes_are_as_asked(tiny_world, tiny_world_sizes):
    sizes = tiny_world_sizes

    for name in ITEMS:
        assert len(read(tiny_world, name, "validation")) == sizes["validation"]
        assert len(read(tiny_world, name, "test")) == sizes["test"]
    assert len(read(tiny_world, "pretraining", "train")) == sizes["pretraining"]
    assert len(read(tiny_world, "held_out", "test")) == world.HELD_OUT
    assert len(read(tiny_world, "nl2sql", "train")) == sizes["nl2sql_train"]
    assert len(list((tiny_world / "nl2sql" / "databases").glob("*.sql"))) == sizes["databases"]


def test_the_replay_sample_is_the_beginning_of_the_pretraining_text(tiny_world, tiny_world_sizes):
    text = read(tiny_world, "pretraining", "train")

    assert read(tiny_world, "replay", "train") == text[: tiny_world_sizes["replay"]]


@pytest.mark.parametrize("name", ITEMS)
def test_no_item_is_training_text(tiny_world, name):
    text = {r["prompt"] for source in TRAINING for r in read(tiny_world, source, "train")}

    assert text.isdisjoint(r["prompt"] for r in read(tiny_world, name, *HELD_OUT))


@pytest.mark.parametrize("name", ITEMS)
def test_no_item_stands_twice(tiny_world, name):
    items = read(tiny_world, name, *HELD_OUT)

    assert len({r["prompt"] for r in items}) == len({r["id"] for r in items}) == len(items)


@pytest.mark.parametrize("name", FACTUAL)
def test_a_fact_is_trained_in_the_two_paraphrases_that_are_not_asked(many_facts, name):
    text = read(many_facts, "telecom" if name == "telecom" else "pretraining", "train")
    answers = {r["id"]: r["answer"] for r in text}

    for item in read(many_facts, name, *HELD_OUT):
        fact, asked = item["id"].rsplit("-", 1)
        trained = {t: answers[f"{fact}-{t}"] for t in "012" if f"{fact}-{t}" in answers}
        assert trained == dict.fromkeys(set("012") - {asked}, item["answer"])


def test_validation_has_what_test_leaves_of_the_facts(tiny_world, tiny_world_sizes, tmp_path):
    world.write(tmp_path / "data", 3, {**tiny_world_sizes, "test": 300, "validation": 300})

    found = {name: len(read(tmp_path / "data", name, "validation")) for name in ITEMS}
    assert found["telecom"] == found["micro_mmlu"] == 100
    assert found["micro_bbh"] == found["micro_recite"] == found["nl2sql"] == 300
    assert len(read(tmp_path / "data", "telecom", "test")) == 300


@pytest.mark.parametrize("name", FACTUAL)
def test_no_fact_is_in_two_splits(tiny_world, name):
    asked = [r["id"].rsplit("-", 1)[0] for r in read(tiny_world, name, *HELD_OUT)]

    assert len(set(asked)) == len(asked)


def test_sql_splits_share_no_query_and_no_question(tiny_world):
    splits = [read(tiny_world, "nl2sql", split) for split in ("train", *HELD_OUT)]
    everything = [r for split in splits for r in split]

    for key in (lambda r: (r["database"], r["answer"]), lambda r: (r["database"], question(r))):
        shared = Counter(k for split in splits for k in {key(r) for r in split})
        assert max(shared.values()) == 1
    assert len({(r["database"], r["answer"]) for r in everything}) == len(everything)


def test_pretraining_shares_no_query_with_the_domain(tiny_world):
    queries = {r["answer"] for r in read(tiny_world, "nl2sql", "train", *HELD_OUT)}
    text = [r["answer"] for r in read(tiny_world, "pretraining", "train")]

    assert any(answer.startswith("SELECT ") for answer in text)
    assert queries.isdisjoint(text)


def test_pretraining_avoids_items_that_it_would_meet_by_chance(
    tiny_world_sizes, tmp_path, monkeypatch
):
    def one_of_100(key, dice):
        return facts.multiple_choice(key, f"number {dice.randrange(100)}", "1", "1234", dice)

    def one_of_400(table, dice, word):
        n = dice.randrange(400)
        return f"what is {n}", f"SELECT {n}"

    monkeypatch.setattr(general, "procedure", one_of_100)
    monkeypatch.setattr(nl2sql, "query", one_of_400)
    monkeypatch.setattr(world, "MIXTURE", {"bbh": 0.5, "nl2sql": 0.5})
    world.write(tmp_path / "few", seed=3, sizes={**tiny_world_sizes, "databases": 1})

    text = read(tmp_path / "few", "pretraining", "train")
    items = read(tmp_path / "few", "micro_bbh", *HELD_OUT)
    queries = read(tmp_path / "few", "nl2sql", "train", *HELD_OUT)
    assert {r["prompt"] for r in text}.isdisjoint(r["prompt"] for r in items)
    assert {r["answer"] for r in text}.isdisjoint(r["answer"] for r in queries)


def test_every_gold_query_returns_rows(tiny_world):
    for record in read(tiny_world, "nl2sql", "train", *HELD_OUT):
        rows = execute(database(tiny_world, record["database"]), record["answer"])
        assert rows and None not in rows[0], record


@pytest.mark.parametrize("name", ["db0", "db1"])
def test_numbers_are_distinct_so_that_an_order_is_total(tiny_world, name):
    with closing(sqlite3.connect(database(tiny_world, name))) as connection:
        tables = [t for (t,) in connection.execute("SELECT name FROM sqlite_master")]
        numbers = [
            (table, column)
            for table in tables
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})")
            if kind == "INTEGER"
        ]
        for table, column in numbers:
            query = f"SELECT COUNT(*), COUNT(DISTINCT {column}) FROM {table}"
            rows, distinct = connection.execute(query).fetchone()
            assert rows == distinct > 1

    assert len(tables) == 2 and len(numbers) == 4


@pytest.mark.parametrize("name", ["db0", "db1"])
def test_the_sqlite_file_holds_what_the_sql_text_says(tiny_world, name):
    script = database(tiny_world, name, ".sql").read_text(encoding="utf-8")

    with (
        closing(sqlite3.connect(":memory:")) as expected,
        closing(sqlite3.connect(database(tiny_world, name))) as found,
    ):
        expected.executescript(script)
        assert list(found.iterdump()) == list(expected.iterdump())
        assert sum(line.startswith("INSERT") for line in found.iterdump()) == script.count("INSERT")


@pytest.mark.parametrize("name", CHOICE)
def test_four_options_hold_the_answer_once(tiny_world, name):
    for item in read(tiny_world, name, *HELD_OUT):
        assert len(item["choices"]) == len(set(item["choices"])) == 4
        assert item["choices"][item["gold"]] == item["answer"]


def test_the_answer_stands_anywhere_among_the_options(tiny_world):
    places = Counter(r["gold"] for name in CHOICE for r in read(tiny_world, name, *HELD_OUT))
    items = places.total()

    # Four standard deviations of a binomial around a quarter.
    assert sorted(places) == [0, 1, 2, 3]
    assert all(abs(n - items / 4) < 4 * (items * 3 / 16) ** 0.5 for n in places.values())


def test_the_tokenizer_knows_every_word(tiny_world, tokenizer):
    known = tokenizer.get_vocab()
    records = [r for path in tiny_world.rglob("*.jsonl") for r in read_lines(path)]

    texts = [t for r in records for t in (r["prompt"], r["answer"], *r.get("choices", ()))]
    assert {word for text in texts for word in text.split()} <= set(known) - set(words.SPECIAL)


def test_the_tokenizer_has_as_many_entries_as_asked(tokenizer):
    assert len(tokenizer) == VOCABULARY
    assert sorted(tokenizer.get_vocab().values()) == list(range(VOCABULARY))


def test_a_saved_tokenizer_reads_and_writes_as_before(tiny_world, tokenizer, tmp_path):
    texts = [f"{r['prompt']} {r['answer']}" for r in read(tiny_world, "nl2sql", "test")]

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)

    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert again.batch_decode(again(texts)["input_ids"]) == texts
    assert (again.eos_token, again.pad_token) == ("<eos>", "<pad>")


def test_jargon_names_one_column_each():
    said = Counter(word for pair in JARGON.values() for word in pair)

    assert set(JARGON) == {*TEXT_COLUMNS, *NUMBER_COLUMNS}
    assert set(said.values()) == {1}
    assert set(said).isdisjoint(JARGON)
