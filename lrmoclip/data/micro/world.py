"""Writes the micro world: pretraining text, five general benchmarks, two domains, the databases.

The same seed and sizes give the same bytes on every machine."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

from lrmoclip.core import files
from lrmoclip.data.micro import facts, general, nl2sql, telecom

HELD_OUT = 400  # records of the same mixture that no base reads

# How often each kind of text is drawn for pretraining; but for the single hops, all that stand
# before the domains are what the general benchmarks ask. The last two make the domains warm.
MIXTURE = {
    "mmlu": 0.13, "gpqa": 0.11, "hop": 0.05, "math": 0.15, "bbh": 0.28, "recital": 0.08,
    "telecom": 0.08, "nl2sql": 0.12,
}  # fmt: skip


def write(folder: Path, seed: int, sizes: dict[str, int]) -> None:
    """Write the world into a folder.

    sizes: `pretraining` records and the `replay` sample of them; `validation` and `test` items of
    each benchmark and domain, of facts no more than there are; `databases` of the SQL domain and
    its `nl2sql_train` questions.
    """
    dice = {name: Random(f"{seed}-{name}") for name in ("facts", "items", "text", "sql")}
    worlds = {
        "mmlu": general.subject_facts(dice["facts"]),
        "math": general.arithmetic_facts(dice["facts"]),
        "telecom": telecom.facts(dice["facts"]),
    }
    worlds["gpqa"], hops = general.two_hop_facts(dice["facts"])
    items = {"validation": sizes["validation"], "test": sizes["test"]}
    sets: dict[str, dict[str, list[dict]]] = {
        f"micro_{name}": facts.held_out_items(worlds[name], items, dice["items"])
        for name in ("mmlu", "gpqa", "math")
    }
    sets["micro_bbh"] = _fresh_items("bbh", general.procedure, items, dice["items"])
    sets["micro_recite"] = _fresh_items("recite", general.recital, items, dice["items"])
    sets["telecom"] = {"train": list(facts.training_records(worlds["telecom"]))}
    sets["telecom"] |= facts.held_out_items(worlds["telecom"], items, dice["items"])
    databases = [nl2sql.database(f"db{i}", dice["sql"]) for i in range(sizes["databases"])]
    splits = {"train": sizes["nl2sql_train"], **items}
    sets["nl2sql"] = nl2sql.domain_records(databases, splits, dice["sql"])
    text = list(_pretraining(worlds, hops, sets, sizes, dice["text"]))
    text, held_out = text[:-HELD_OUT], text[-HELD_OUT:]
    sets["pretraining"], sets["held_out"] = {"train": text}, {"test": held_out}
    # The text is shuffled, so its beginning is a sample: for replay and for EWC's Fisher.
    sets["replay"] = {"train": text[: sizes["replay"]]}
    for name, by_split in sets.items():
        for split, records in by_split.items():
            files.write_jsonl(folder / name / f"{split}.jsonl", records)
    for base in databases:
        script = folder / "nl2sql" / "databases" / f"{base.name}.sql"
        files.write_text(script, base.to_sql())
        build_sqlite(script, script.with_suffix(".sqlite"))


def build_sqlite(script: Path, target: Path) -> None:
    """Build SQLite's file from the SQL text, which is canonical."""
    with closing(sqlite3.connect(target)) as connection:
        connection.executescript(f"BEGIN;{script.read_text(encoding='utf-8')}COMMIT;")


def _fresh_items(
    name: str, make: Callable[[str, Random], dict], sizes: dict[str, int], dice: Random
) -> dict[str, list[dict]]:
    """For each split of `sizes` as many items, none in two splits."""
    fresh = _fresh(lambda key: make(key, dice), set())
    return {
        split: [fresh(f"{name}-{split}-{i}") for i in range(size)] for split, size in sizes.items()
    }


def _fresh(make: Callable[[str], dict], seen: set[str]) -> Callable[[str], dict]:
    """`make`, repeated until its prompt is not in `seen`; the prompt is then added."""

    def made(key: str) -> dict:
        while True:
            item = make(key)
            if item["prompt"] not in seen:
                seen.add(item["prompt"])
                return item

    return made


def _pretraining(worlds, hops, sets, sizes: dict[str, int], dice: Random) -> Iterator[dict]:
    """A shuffled mixture. Facts recur in their training paraphrases; procedures, other standards
    and databases are fresh each time and never equal to a benchmark item or a domain query."""
    benchmarks = {r["prompt"] for s in sets.values() for split in s.values() for r in split}
    domain_sql = {r["answer"] for split in sets["nl2sql"].values() for r in split}
    pools = {name: list(facts.training_records(worlds[name])) for name in ("mmlu", "gpqa", "math")}
    # The single hops are no benchmark: all their paraphrases are text.
    pools["hop"] = [
        facts.record(f"{hop.key}-{i}", prompt, hop.answer)
        for hop in hops
        for i, prompt in enumerate(hop.prompts)
    ]
    makers = {
        "bbh": lambda key: general.as_training(general.procedure(key, dice)),
        "recital": lambda key: general.recital(key, dice),
        "telecom": lambda key: telecom.other_standard(key, dice),
        "nl2sql": lambda key: nl2sql.other_database(key, dice),
    }
    kinds = dice.choices(list(MIXTURE), list(MIXTURE.values()), k=sizes["pretraining"] + HELD_OUT)
    for i, kind in enumerate(kinds):
        if kind in pools:
            yield dice.choice(pools[kind])
            continue
        made = makers[kind](f"{kind}-pretraining-{i}")
        while made["prompt"] in benchmarks or made["answer"] in domain_sql:
            made = makers[kind](f"{kind}-pretraining-{i}")
        yield made
