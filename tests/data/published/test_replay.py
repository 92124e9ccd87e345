"""General text for replay: clean, in equal parts, and nothing that a benchmark asks."""

import json
import re

import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.data.published import general, sources
from lrmoclip.data.published import replay as replaying
from tests.data.published import made_up

REPLAYED = 6 + 30 + 12 + 63  # records that can be drawn: articles, ARC, MMLU, MATH


@pytest.fixture
def folder(tmp_path):
    return made_up.folder(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    return made_up.hub(monkeypatch)


def test_no_item_of_a_benchmark_is_replayed(folder):
    every = {"mmlu": {}, "arc_easy": {}, "wikitext": {}, "math": {"validation": 21}}
    sets, _, _ = general.collect(folder, every, seed=3)
    ids = {d["id"] for by_split in sets.values() for found in by_split.values() for d in found}
    replayed = {record["id"] for record in general.replay(folder, REPLAYED - 1, seed=3)[0]}
    assert not ids & (replayed | {i.removesuffix("-000") for i in replayed})


def _by_part(records: list[dict]) -> dict[str, list[dict]]:
    parts: dict[str, list[dict]] = {}
    for record in records:
        parts.setdefault(record["id"].split("-")[0], []).append(record)
    return parts


def test_replay_takes_equal_parts_and_the_same_ones_each_time(folder):
    replay = general.replay(folder, 24, seed=1)[0]
    assert {part: len(records) for part, records in _by_part(replay).items()} == {
        "wikitext2": 6,
        "arc_easy": 6,
        "mmlu": 6,
        "math": 6,
    }
    assert replay == general.replay(folder, 24, seed=1)[0] != general.replay(folder, 24, seed=2)[0]
    assert all(list(record) == ["id", "prompt", "answer"] for record in replay)


def test_replayed_texts_are_as_written_by_hand(folder):
    replay, _ = general.replay(folder, REPLAYED - 1, seed=1)
    first = {part: records[0] for part, records in _by_part(replay).items()}
    sentence = "The old mill, built in 1,850, stood by the river for years and years and years."
    assert first["wikitext2"] == {
        "id": "wikitext2-valid-001-000",
        "prompt": "The old mill, built in 1,850, stood by",
        "answer": f"{sentence.partition('stood by ')[2]} {sentence}",
    }
    assert first["arc_easy"] == {
        "id": "arc_easy-Made_train_0",
        "prompt": "Question: What warms the train pond 0?\nAnswer:",
        "answer": "the sun",
    }
    assert first["mmlu"] == {
        "id": "mmlu-anatomy-validation-0001",
        "prompt": "Which part is validation anatomy 1?\n"
        "A. part 1\nB. the toe\nC. the ear\nD. the chin\nAnswer:",
        "answer": "B",
    }
    assert first["math"] == {
        "id": "math-train-algebra-00001",
        "prompt": "Problem: What is $1 + 1$ for train algebra?\nSolution:",
        "answer": "It is $\\boxed{2}$.",
    }


def test_replay_never_holds_a_test_question_nor_a_long_one(tmp_path):
    train = made_up.arc("train", 9)
    train[0]["question"] = made_up.arc("test", 1)[0]["question"].upper().replace("?", " ?!")
    train[1]["question"] = "Why? " * 200
    source = made_up.folder(tmp_path, {"easy/arc_easy/train": train})
    replayed = {r["id"] for r in general.replay(source, 70, seed=1)[0]}
    assert {r["id"] for r in train} - replayed == {train[0]["id"], train[1]["id"]}


def test_replayed_passages_have_no_stand_ins_and_are_cut(tmp_path):
    long = "word " * 250 + ". "
    short = f"{'more ' * 30}. "
    article = {"id": "wikitext2-valid-001", "text": f" = A = \n \n {long}It is <unk> . {short}\n"}
    filler = {"id": "wikitext2-valid-000", "text": " = B = \n"}
    changed = {"easy/wikitext2/validation": [filler, article]}
    changed |= dict.fromkeys(("mmlu/test", "math/test", "easy/arc_easy/test"))
    parts = general.replay(made_up.folder(tmp_path, changed), 3, seed=1)
    found = sorted((r for part in parts for r in part), key=lambda r: r["id"])
    lengths = [len(f"{r['prompt']} {r['answer']}".split()) for r in found]
    assert lengths == [90, 90, 70, 30] and not any("<unk>" in r["answer"] for r in found)


def test_replay_reads_the_train_split_of_wikitext_where_there_is_one(hub):
    ids = {r["id"] for r in general.replay(hub, 40, seed=1)[0] if r["id"].startswith("wikitext2")}
    assert ids and all(i.startswith("wikitext2-train-") for i in ids)


def test_what_is_held_out_is_of_the_same_kind_and_in_no_replay(folder):
    replay, held_out = general.replay(folder, 24, seed=1)

    assert 0 < len(held_out) <= replaying.HELD_OUT
    assert not {r["id"] for r in replay} & {r["id"] for r in held_out}
    assert set(_by_part(held_out)) <= set(_by_part(replay))


def test_replay_that_asks_for_too_much_is_refused(folder):
    with pytest.raises(UserError, match=r"data.replay: 5000 records asked for, \d+ available"):
        general.replay(folder, 5000, seed=1)


def test_real_replay_text_is_clean_and_holds_no_test_question(real):
    source = sources.Folder(real)
    replay = general.replay(source, 2000, seed=1)[0]
    assert {part: len(records) for part, records in _by_part(replay).items()} == {
        "wikitext2": 500,
        "arc_easy": 500,
        "mmlu": 500,
        "math": 500,
    }
    text = json.dumps(replay)
    assert "<unk>" not in text and "@-@" not in text and len({r["id"] for r in replay}) == 2000
    with pytest.raises(UserError) as refused:
        general.replay(source, 10**6, seed=1)
    available = int(re.search(r"(\d+) available", str(refused.value))[1])
    parts = general.replay(source, available - 1, seed=1)
    every = {record["id"] for part in parts for record in part}
    # Each is also a test question, as a search for its words in the test files shows.
    assert not every & {
        "arc_easy-Mercury_409875",
        "math-train-algebra-00777",
        "mmlu-college_physics-validation-0001",
    }
