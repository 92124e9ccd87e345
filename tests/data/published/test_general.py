"""The general benchmarks' subsets: drawn by seed, evenly over tasks, counted, and refused where a
source cannot give them."""

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.core.errors import UserError
from lrmoclip.data.published import benchmarks, general, sources
from lrmoclip.data.published.sampling import draw
from tests.data.published import made_up
from tests.data.published.made_up import collected


@pytest.fixture
def folder(tmp_path):
    return made_up.folder(tmp_path)


_strata = st.lists(st.sampled_from("aabbbcd"), min_size=1, max_size=40)


@given(_strata, st.integers(0, 40), st.integers(0, 3))
def test_a_draw_is_as_even_as_the_strata_allow(names, size, seed):
    items = [{"task": name} for name in names]
    chosen = draw(items, size, Random(seed), lambda item: item["task"])
    assert chosen == sorted(set(chosen)) and len(chosen) == min(size, len(items))
    taken, there = Counter(names[i] for i in chosen), Counter(names)
    left = [taken[name] for name in there if taken[name] < there[name]]
    assert not left or max(taken.values(), default=0) - min(left) <= 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=30), st.data())
def test_a_draw_is_even_over_finer_strata_too_and_holds_the_smaller_draw(pairs, data):
    size = data.draw(st.integers(0, len(pairs)))
    keys = (lambda item: item[0]), (lambda item: item[1])
    chosen = draw(pairs, size, Random(1), *keys)
    assert set(draw(pairs, size // 2, Random(1), *keys)) <= set(chosen)
    for coarse in "ab":
        taken = Counter(pairs[i][1] for i in chosen if pairs[i][0] == coarse)
        there = Counter(fine for name, fine in pairs if name == coarse)
        left = [taken[fine] for fine in there if taken[fine] < there[fine]]
        assert not left or max(taken.values(), default=0) - min(left) <= 1


def test_what_is_left_over_goes_to_strata_by_chance():
    items = list("aabbcc")
    firsts = {items[draw(items, 1, Random(seed), lambda item: item)[0]] for seed in range(20)}
    assert firsts == {"a", "b", "c"}


def test_subsets_depend_on_the_seed_alone_and_keep_the_sources_order(folder):
    every = [d["id"] for d in collected(folder, "arc_easy")]
    drawn = [d["id"] for d in collected(folder, "arc_easy", test=4)]
    assert drawn == [d["id"] for d in collected(folder, "arc_easy", test=4)]
    assert drawn == [i for i in every if i in drawn] and len(drawn) == 4
    others = ([d["id"] for d in collected(folder, "arc_easy", seed=s, test=4)] for s in range(9))
    assert any(other != drawn for other in others)


def test_subsets_are_spread_over_tasks_and_maths_levels(folder):
    drawn = collected(folder, "math", test=35)
    assert set(Counter((d["task"], d["level"]) for d in drawn).values()) == {1}
    assert Counter(d["task"] for d in collected(folder, "mmlu", test=6)) == Counter(
        {"mmlu_anatomy": 3, "mmlu_virology": 3}
    )


@pytest.mark.parametrize("role", made_up.ROLES)
def test_no_item_is_both_validation_and_test(role, folder):
    sets, _, _ = general.collect(folder, {role: {"test": 2, "validation": 2}}, seed=3)
    ids = {split: {d["id"] for d in documents} for split, documents in sets[role].items()}
    assert len(ids["validation"]) == len(ids["test"]) == 2
    assert not ids["validation"] & ids["test"]


def test_counts_say_what_was_there_and_what_was_left_out(folder, tmp_path):
    _, _, counts = general.collect(folder, {"mmlu": {"test": 5}, "piqa": {"test": 2}}, seed=1)
    assert counts["mmlu"] == {
        "test": {"available": 12, "left_out": {}},
        "validation": {"available": 4, "left_out": {"kept for replay": 12}},
        "fewshot": {"available": 10, "left_out": {}},
    }
    assert counts["piqa"] == {"test": {"available": 6, "left_out": {}}}


def test_a_problem_without_an_answer_is_left_out(tmp_path):
    empty = made_up.math("test", 2)
    empty[0]["solution"], empty[3]["solution"] = "So it is $\\boxed{}$.", "So it is seven."
    sets, _, counts = general.collect(
        made_up.folder(tmp_path, {"math/test": empty}), {"math": {}}, seed=1
    )
    assert counts["math"]["test"] == {
        "available": 12,
        "left_out": {"the solution boxes nothing": 2},
    }
    assert not {empty[0]["id"], empty[3]["id"]} & {d["id"] for d in sets["math"]["test"]}


def test_gpqa_is_reported_as_missing_in_one_line(folder):
    sets, missing, counts = general.collect(folder, {"gpqa": {}, "piqa": {}}, seed=1)
    assert list(sets) == list(counts) == ["piqa"]
    assert missing == {"gpqa": "the data folder has no gpqa/gpqa_main.jsonl"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trivia": {}}, "data.general: no benchmark trivia"),
        ({"piqa": {"test": 7}}, "data.general.piqa.test: 7 records asked for, 6 available"),
        ({"piqa": {"validation": 1}}, "data.general.piqa.validation: 1 records asked for, 0 avail"),
        ({"bbh": {"tasks": "bbh"}}, "data.general.bbh.tasks: no bbh. Use one of bbh_zeroshot"),
        ({"piqa": {"tasks": "piqa"}}, "data.general.piqa.tasks: no piqa. Leave it out"),
    ],
)
def test_settings_that_cannot_be_met_are_named(folder, settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        general.collect(folder, settings, seed=1)


@pytest.mark.parametrize("answer", [3, -1])
def test_an_answer_that_is_none_of_the_choices_is_named(tmp_path, answer):
    broken = made_up.arc("test", 2)
    broken[1]["answer"] = answer
    source = made_up.folder(tmp_path, {"easy/arc_easy/test": broken})
    with pytest.raises(
        UserError, match=r"easy/arc_easy, record arc_easy-Made_test_1: .*of 3 choices"
    ):
        general.collect(source, {"arc_easy": {}}, seed=1)


def test_chance_is_the_mean_over_the_options_that_an_item_offers(folder):
    def chance(task):
        documents = collected(folder, "bbh")
        return general.chance("bbh", [d for d in documents if d["task"] == f"bbh_zeroshot_{task}"])

    assert chance("date_understanding") == pytest.approx(1 / 3)
    assert chance("navigate") == chance("boolean_expressions") == 1 / 2
    assert chance("object_counting") == 0
    assert general.chance("arc_easy", collected(folder, "arc_easy")) == pytest.approx(1 / 3)
    assert general.chance("mmlu", collected(folder, "mmlu")) == 1 / 4
    assert general.chance("blimp", collected(folder, "blimp")) == 1 / 2
    assert general.chance("lambada", collected(folder, "lambada")) is None


def test_the_real_folder_gives_as_many_documents_as_its_readme_states(real):
    sets, missing, _ = general.collect(
        sources.Folder(real), {role: {} for role in benchmarks.BENCHMARKS}, seed=1
    )
    counts = {role: len(by_split["test"]) for role, by_split in sets.items()}
    assert counts == {
        **{"mmlu": 14042, "bbh": 6511, "math": 5000, "arc_easy": 2376, "hellaswag": 1000},
        **{"piqa": 1838, "lambada": 5153, "blimp": 13400, "wikitext": 62},
    }
    assert list(missing) == ["gpqa"]
    tasks = {role: len({d["task"] for d in by_split["test"]}) for role, by_split in sets.items()}
    assert (tasks["mmlu"], tasks["bbh"], tasks["math"], tasks["blimp"]) == (57, 27, 7, 67)
    assert Counter(d["task"] for d in sets["mmlu"]["fewshot"]) == dict.fromkeys(
        (d["task"] for d in sets["mmlu"]["test"]), 5
    )


def test_a_real_subset_takes_as_many_of_each_task(real):
    sizes = {"mmlu": {"test": 570, "validation": 57}, "blimp": {"test": 134, "validation": 67}}
    sets, _, _ = general.collect(sources.Folder(real), sizes | {"bbh": {"test": 54}}, seed=1)
    for role, each in (("mmlu", 10), ("blimp", 2), ("bbh", 2)):
        assert set(Counter(d["task"] for d in sets[role]["test"]).values()) == {each}
        if "validation" in sets[role]:
            assert set(Counter(d["task"] for d in sets[role]["validation"]).values()) == {1}
