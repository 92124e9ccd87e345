"""The published data themselves: counts, splits and queries. Skipped where the folder is absent."""

import pytest

from lrmoclip.data import leakage
from lrmoclip.data.published import nl2sql, telecom
from lrmoclip.data.published.sources import Folder
from lrmoclip.data.sql_execution import execute


@pytest.fixture(scope="module")
def source(real):
    return Folder(real)


@pytest.fixture(scope="module")
def geography(source):
    return nl2sql.geography(source, {}, 1)


def test_teleqna_has_every_question_that_is_not_flagged(source):
    domain = telecom.collect(source, {"validation": 100}, 1)

    assert {split: len(found) for split, found in domain.splits.items()} == {
        "train": 8000 - 107 - 100,
        "validation": 100,
        "test": 2000 - 18,
    }
    chance = [1 / len(item["choices"]) for item in domain.splits["test"]]
    assert sum(chance) / len(chance) == pytest.approx(0.217, abs=5e-4)


def test_the_rules_for_the_hub_give_the_folder_s_split_and_flags(source):
    train, test = (source.records("telecom", s, telecom.FIELDS) for s in ("train", "test"))
    flagged = source.records("telecom", "flagged", {"id": str})

    assert telecom.split_ids(train + test) == {row["id"] for row in test}
    assert telecom.flagged_ids(train + test) == {row["id"] for row in flagged}


def test_teleqna_shares_no_question_between_splits(source):
    splits = telecom.collect(source, {}, 1).splits

    asked = {s: {leakage.words(item["question"]) for item in splits[s]} for s in splits}
    assert not asked["train"] & (asked["validation"] | asked["test"])
    assert not asked["validation"] & asked["test"]


def test_geoquery_has_the_sizes_of_its_query_split(geography):
    assert {split: len(found) for split, found in geography.splits.items()} == {
        "train": 535,
        "validation": 155,
        "test": 182,
    }
    assert sum(item["empty"] for item in geography.splits["test"]) == 2


def test_geoquery_shares_no_sql_between_train_and_test(geography):
    train = {leakage.normal_sql(item["answer"]) for item in geography.splits["train"]}
    accepted = {
        leakage.normal_sql(query)
        for item in geography.splits["test"]
        for query in (item["answer"], *item["alternatives"])
    }

    assert not train & accepted


def test_geoquery_s_own_question_split_would_leak(source):
    fields = nl2sql.FIELDS
    files = {s: source.records("nl2sql/geography", s, fields) for s in ("train", "dev", "test")}
    seen = {row["sql"] for split in ("train", "dev") for row in files[split]}

    assert sum(row["sql"] in seen for row in files["test"]) == 121


@pytest.mark.parametrize(("collect", "count"), [(nl2sql.geography, 872), (nl2sql.sqleval, 277)])
def test_every_gold_query_returns_what_its_record_says(source, collect, count):
    domain = collect(source, {}, 1)

    items = [item for found in domain.splits.values() for item in found]
    assert len(items) == count
    for item in items:
        rows = execute(domain.databases[item["database"]], item["answer"], time_limit_s=60.0)
        assert item["empty"] == (not rows)
