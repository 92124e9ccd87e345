"""Does training see what is tested? Training records are compared with test and validation items.

A leak is a pair of a training record and an item, of one of these kinds:
  text         the questions are equal, word by word;
  ngram        question and answer in words share n consecutive words, as in Brown et al. 2020
               (arXiv:2005.14165, appendix C: n = 13). One n-gram is enough, but for those in more
               than ten training records, such as the fixed words of a task. Of the options, gold
               counts alone;
  sql          the record's query is the item's gold or an accepted one, up to layout and case;
  results      the queries differ but their results are the same rows, and more than one;
  coincidence  the same with one row or none.
The first three give an answer away, so such records are removed. Equal results don't: other
questions may have the same answer, as "the shortest river" and "the delaware river" do, and
training never sees a result. SQL is left out of the n-grams, since clauses of 13 words recur in
queries that differ.
"""

import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import sqlglot
from sqlglot import exp

from lrmoclip.core.errors import UserError
from lrmoclip.data.sql_execution import execute

REMOVED = ("text", "ngram", "sql")  # in the order in which a record's reason is given
_COMMON = 10
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Passage:
    """What is compared of one record. `queries`: normalised SQL, gold first; `rows`: gold's
    result, sorted, as text."""

    set: str
    id: str
    question: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    database: str = ""
    queries: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class Leak:
    """A line of leakage.csv; `set` is the training set. `test_set` is the item's set and split."""

    set: str
    kind: str
    train_id: str
    test_id: str
    test_set: str

    @property
    def removed(self) -> bool:
        return self.kind in REMOVED


def of_domain(name: str, record: dict, databases: dict[str, Path]) -> Passage:
    """A domain's record before its `question` and `prose` are dropped."""
    question = words(record["question"])
    passage = {"question": question, "words": question + words(record["prose"])}
    if "database" in record:
        rows = execute(databases[record["database"]], record["answer"], time_limit_s=60.0)
        passage |= {
            "database": record["database"],
            "queries": tuple(map(normal_sql, (record["answer"], *record["alternatives"]))),
            "rows": tuple(sorted(map(repr, rows))),
        }
    return Passage(name, record["id"], **passage)


def of_text(name: str, record: dict) -> Passage:
    """A record of replay, or an item of a general benchmark, whose fields differ by benchmark: the
    words of all its texts in turn, and its prompt as a question, where it has one."""
    texts = (value for key, value in record.items() if key not in ("id", "task"))
    every = tuple(word for text in _strings(texts) for word in words(text))
    return Passage(name, record["id"], words(record.get("prompt", "")), every)


def words(text: str) -> tuple[str, ...]:
    """The words of a text, letter case, punctuation and compatible forms aside."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def normal_sql(query: str) -> str:
    """A query without comments, in one layout, its identifiers in lower case and unquoted."""
    tree = sqlglot.parse_one(query, dialect="sqlite")
    for name in tree.find_all(exp.Identifier):
        name.set("this", name.this.lower())
        name.set("quoted", False)
    return tree.sql(dialect="sqlite", comments=False)


def common_ngrams(train: Iterable[Passage], ngram: int) -> set[tuple]:
    """The n-grams that more than ten training records have."""
    times = Counter(gram for passage in train for gram in set(_ngrams(passage, ngram)))
    return {gram for gram, count in times.items() if count > _COMMON}


def search(
    train: Iterable[Passage], test: Iterable[Passage], ngram: int, common: Container = ()
) -> list[Leak]:
    """All leaks between training passages and items, sorted; n-grams in `common` are no leak."""
    having = defaultdict(list)
    for passage in train:
        for key in set(_keys(passage, ngram, passage.queries[:1])):
            having[key].append(passage)
    found = {
        Leak(passage.set, key[0], passage.id, item.id, item.set)
        for item in test
        for key in _keys(item, ngram, item.queries)
        if key in having and key not in common
        for passage in having[key]
    }
    equal = {(leak.train_id, leak.test_id) for leak in found if leak.kind == "sql"}
    return sorted(
        leak for leak in found if leak.kind in REMOVED or (leak.train_id, leak.test_id) not in equal
    )


def _keys(passage: Passage, ngram: int, queries: tuple[str, ...]) -> Iterator[tuple]:
    """What a training record and an item leak by, if both have it: a kind, then the rest."""
    if passage.question:
        yield ("text", *passage.question)
    yield from _ngrams(passage, ngram)
    for query in queries:
        yield ("sql", passage.database, query)
    if queries:
        kind = "results" if len(passage.rows) > 1 else "coincidence"
        yield (kind, passage.database, *passage.rows)


def _ngrams(passage: Passage, n: int) -> Iterator[tuple]:
    return zip(repeat("ngram"), *(passage.words[i:] for i in range(n)), strict=False)


def reasons(leaks: Iterable[Leak], name: str) -> dict[str, str]:
    """Why each record of the training set `name` is removed: its first kind of leak."""
    found: dict[str, str] = {}
    for kind in REMOVED:
        for leak in leaks:
            if leak.set == name and leak.kind == kind:
                found.setdefault(leak.train_id, kind)
    return found


def items(leaks: Iterable[Leak]) -> dict[str, dict[str, int]]:
    """How many items of each test set leak, by kind."""
    counts: dict[str, dict[str, int]] = {}
    for test_set, kind, _ in sorted({(k.test_set, k.kind, k.test_id) for k in leaks}):
        kinds = counts.setdefault(test_set, {})
        kinds[kind] = kinds.get(kind, 0) + 1
    return counts


def to_csv(leaks: Iterable[Leak]) -> str:
    """The lines of leakage.csv."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["set", "kind", "train_id", "test_id", "removed"])
    table.writerows([k.set, k.kind, k.train_id, k.test_id, str(k.removed).lower()] for k in leaks)
    return text.getvalue()


def check(leaks: Iterable[Leak], items: Counter, limit: float) -> None:
    """Raise UserError where more than the share `limit` of the `items` of a test set leak by a kind
    that should have been removed."""
    leaking = Counter(name for name, _ in {(k.test_set, k.test_id) for k in leaks if k.removed})
    for name, count in sorted(leaking.items()):
        if count > limit * items[name]:
            raise UserError(
                f"{name}: {count} of {items[name]} items leak into training, more than "
                f"data.leakage.limit ({limit:g})",
                "Split it otherwise, or raise the limit",
            )


def _strings(values: Iterable) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _strings(value.values())
        elif isinstance(value, list | tuple):
            yield from _strings(value)
