"""Leaks are found as a slow reading of their definitions finds them, and are removed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core.errors import UserError
from lrmoclip.data import leakage
from lrmoclip.data.domain import Domain
from lrmoclip.data.leakage import Leak, Passage
from lrmoclip.data.separation import remove_leaks
from tests.data.published.conftest import build

SENTENCE = "the carrier sense range of a station sets how far it hears its neighbours well"


def kinds(train: Passage, item: Passage, ngram: int = 13) -> list[str]:
    return [leak.kind for leak in leakage.search([train], [item], ngram)]


def asked(text: str, **more) -> Passage:
    return Passage("telecom", text, question=leakage.words(text), words=leakage.words(text), **more)


def said(text: str) -> Passage:
    return Passage("replay", text, words=leakage.words(text))


def sql(*queries: str, rows: tuple[str, ...] = ("('Ob',)",), database: str = "rivers") -> Passage:
    normal = tuple(map(leakage.normal_sql, queries))
    return Passage("nl2sql", queries[0], database=database, queries=normal, rows=rows)


def record(key: str, question: str, prose: str = "") -> dict:
    return {"id": key, "question": question, "prose": prose}


def domain(train: list[dict], test: list[dict], **more) -> Domain:
    splits = {"train": train, "validation": [], "test": test}
    counts = {split: len(found) for split, found in splits.items()}
    return Domain(splits, counts, {split: {} for split in splits}, **more)


def test_the_same_question_leaks_whatever_its_case_and_punctuation():
    assert kinds(asked("What is a  PDU, then?"), asked("what is a pdu -- then")) == ["text"]
    assert kinds(asked("What is ﬁne [Ⅳ]?"), asked("what is fine iv")) == ["text"]
    assert kinds(asked("What is a PDU?"), asked("What is an SDU?")) == []


def test_a_record_without_a_question_has_none_in_common():
    assert kinds(said("one"), said("two")) == []


def test_thirteen_words_in_a_row_leak_and_twelve_do_not():
    words = SENTENCE.split()

    assert kinds(said(f"As {SENTENCE}"), asked(" ".join(words[:13]))) == ["ngram"]
    assert kinds(said(f"As {SENTENCE}"), asked(" ".join(words[:12]))) == []
    assert kinds(said(f"As {SENTENCE}"), asked(" ".join([*words[:12], "here", *words[12:]]))) == []


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), max_size=12))
def test_ngrams_leak_as_a_search_through_the_text_says(one, two):
    windows = ["".join(two[i : i + 4]) for i in range(len(two) - 3)]
    expected = any(window in "".join(one) for window in windows)

    assert kinds(said(" ".join(one)), said(" ".join(two)), ngram=4) == ["ngram"] * expected


def test_the_fixed_words_of_a_task_are_no_leak():
    train = [Passage("replay", str(n), words=leakage.words(f"{SENTENCE} {n}")) for n in range(11)]

    assert leakage.search(train, [said(SENTENCE)], 13, leakage.common_ngrams(train, 13)) == []
    assert len(leakage.search(train[:10], [said(SENTENCE)], 13)) == 10
    assert leakage.common_ngrams(train[:10], 13) == set()


def test_a_phrase_that_one_record_repeats_is_not_common():
    assert leakage.common_ngrams([said(f"{SENTENCE} " * 12)], 13) == set()


def test_a_query_leaks_up_to_layout_and_case():
    gold = sql("SELECT r.NAME FROM RIVER AS r WHERE r.LENGTH > 100")

    assert kinds(sql('select R."name"\n from river r -- all\nwhere r.length>100'), gold) == ["sql"]
    assert kinds(sql("SELECT r.NAME FROM RIVER AS r WHERE r.LENGTH > 99"), gold) != ["sql"]
    assert kinds(sql("SELECT 1 WHERE 'Ob'", rows=()), sql("SELECT 1 WHERE 'ob'")) == []


def test_an_accepted_query_leaks_and_a_record_s_alternatives_are_not_trained_on():
    item = sql("SELECT 1", "SELECT 2")

    assert kinds(sql("SELECT 2"), item) == ["sql"]
    assert "sql" not in kinds(sql("SELECT 3", "SELECT 1"), item)


def test_the_same_query_on_another_database_is_no_leak():
    assert kinds(sql("SELECT 1", database="lakes"), sql("SELECT 1")) == []


def test_equal_results_are_told_apart_by_their_size_and_not_removed():
    def leaks(rows: tuple[str, ...]) -> list[tuple[str, bool]]:
        found = leakage.search([sql("SELECT 1", rows=rows)], [sql("SELECT 2", rows=rows)], 13)
        return [(leak.kind, leak.removed) for leak in found]

    assert leaks(("(1,)", "(2,)")) == [("results", False)]
    assert leaks(("(1,)",)) == [("coincidence", False)]
    assert leaks(()) == [("coincidence", False)]


def test_equal_queries_are_not_reported_again_by_their_results():
    rows = ("(1,)", "(2,)")

    assert kinds(sql("SELECT 1", rows=rows), sql("SELECT 1", rows=rows)) == ["sql"]


def test_results_compare_whatever_the_order_of_rows(tmp_path):
    databases = {"rivers": build(tmp_path / "data") / "nl2sql/databases/rivers.sqlite"}

    def passage(query: str) -> Passage:
        about = {"database": "rivers", "answer": query, "alternatives": []}
        return leakage.of_domain("nl2sql", record("q", "?") | about, databases)

    up, down = (passage(f"SELECT name FROM river ORDER BY name {way}") for way in ("ASC", "DESC"))

    assert up.rows == down.rows == ("('Ems',)", "('Ob',)", "('Po',)")


def test_all_texts_of_a_document_are_read_but_not_its_name():
    document = {"id": "one", "task": "two", "question": "three", "choices": {"text": ["four"]}}

    passage = leakage.of_text("arc_easy/test", document | {"answer": 1, "more": [["five"]]})

    assert passage.words == ("three", "four", "five")


def test_leaking_records_are_removed_counted_and_named():
    trained = {
        "telecom": domain(
            [record("a", "Why?"), record("b", "How?", SENTENCE), record("c", "When?")],
            [record("t", "why"), record("u", "Where?", f"Since {SENTENCE}")],
        ),
        "replay": Domain({"train": [{"id": "r", "text": SENTENCE}]}, {"train": 1}, {"train": {}}),
    }

    leaks, items = remove_leaks(trained, {}, ngram=13, limit=0.0)

    assert [r["id"] for r in trained["telecom"].splits["train"]] == ["c"]
    assert trained["telecom"].left_out["train"] == {"leaks by text": 1, "leaks by ngram": 1}
    assert trained["replay"].splits["train"] == []
    assert items == {"telecom/test": {"ngram": 1, "text": 1}}
    assert leakage.to_csv(leaks).splitlines() == [
        "set,kind,train_id,test_id,removed",
        "replay,ngram,r,u,true",
        "telecom,ngram,b,u,true",
        "telecom,text,a,t,true",
    ]


def test_validation_items_are_compared_too():
    trained = {"telecom": domain([record("a", "Why?"), record("b", "How?")], [])}
    trained["telecom"].splits["validation"] = [record("v", "why")]

    _, items = remove_leaks(trained, {}, ngram=13, limit=0.0)

    assert [r["id"] for r in trained["telecom"].splits["train"]] == ["b"]
    assert items == {"telecom/validation": {"text": 1}}


def test_general_benchmarks_are_compared_too():
    trained = {"telecom": domain([record("a", SENTENCE), record("b", "Why?")], [])}
    benchmarks = {"mmlu": {"test": [{"id": "m", "question": SENTENCE.upper(), "answer": 0}]}}

    _, items = remove_leaks(trained, benchmarks, ngram=13, limit=0.0)

    assert [r["id"] for r in trained["telecom"].splits["train"]] == ["b"]
    assert items == {"mmlu/test": {"ngram": 1}}


@given(
    st.lists(st.text("ab ", max_size=8), max_size=14),
    st.lists(st.text("ab ", max_size=8), max_size=5),
)
def test_after_removal_nothing_leaks(train, test):
    trained = {
        "telecom": domain(
            [record(f"a{i}", text) for i, text in enumerate(train)],
            [record(f"t{i}", text) for i, text in enumerate(test)],
        )
    }

    leaks, _ = remove_leaks(trained, {}, ngram=3, limit=0.0)

    kept = {r["id"] for r in trained["telecom"].splits["train"]}
    assert kept.isdisjoint(leak.train_id for leak in leaks)
    spoken = [" ".join(r["question"].split()) for r in trained["telecom"].splits["train"]]
    assert not set(filter(None, spoken)) & {" ".join(text.split()) for text in test}


def test_more_than_the_limit_is_refused_by_set():
    leaks = [Leak("telecom", "text", "a", f"t{n}", "telecom/test") for n in range(2)]
    leaks += [Leak("nl2sql", "results", "b", f"q{n}", "nl2sql/test") for n in range(9)]
    items = Counter({"telecom/test": 100, "nl2sql/test": 10})

    leakage.check(leaks, items, 0.02)
    with pytest.raises(UserError, match="telecom/test: 2 of 100 items leak") as caught:
        leakage.check(leaks, items, 0.019)

    assert "\n" not in str(caught.value)


def test_what_stays_is_checked_again(monkeypatch):
    monkeypatch.setattr(leakage, "reasons", lambda leaks, name: {})
    trained = {"telecom": domain([record("a", "Why?")], [record("t", "why")])}

    with pytest.raises(UserError, match="telecom/test: 1 of 1 items leak"):
        remove_leaks(trained, {}, ngram=13, limit=0.5)
