"""lm-eval's own tasks make of our documents what they make of the hub's, from either source."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.data.published import adapters, benchmarks, general, pins
from lrmoclip.data.published.sources import Folder
from tests.data.published import made_up
from tests.data.published.made_up import collected


@pytest.fixture
def folder(tmp_path):
    return made_up.folder(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    return made_up.hub(monkeypatch)


def _own_task(documents: list[dict], fewshot: list[dict] | None = None, **changed):
    """lm-eval's own task of documents that name the same one, from its own YAML."""
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    (name,) = {document["task"] for document in documents}
    splits = {"test": Dataset.from_list(documents)}
    if fewshot:
        splits["fewshot"] = Dataset.from_list(fewshot)
    config = _own_yaml(name) | {
        "custom_dataset": lambda **_: DatasetDict(splits),
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "fewshot" if fewshot else None,
    }
    return ConfigurableTask(config=config | changed)


def _own_yaml(name: str) -> dict:
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    root = Path(lm_eval.tasks.__file__).parent
    places = {"arc_easy": "arc", "lambada_openai": "lambada", "piqa": "piqa"}
    families = ("bbh", "blimp", "mmlu", "gpqa", "hendrycks_math", "hellaswag", "wikitext")
    near = places.get(name) or next(family for family in families if name.startswith(family))
    named = re.compile(rf"""^["']?task["']?: ["']?{name}["']?$""", re.MULTILINE)
    (path,) = (p for p in (root / near).rglob("*.yaml") if named.search(p.read_text()))
    return load_yaml(path, resolve_func=True)


def _rendered(documents: list[dict]) -> list[tuple]:
    """(prompt, choices, target) of each document under lm-eval's own task."""
    task = _own_task(documents)
    chosen = task.OUTPUT_TYPE == "multiple_choice"
    return [
        (task.doc_to_text(d), task.doc_to_choice(d) if chosen else None, task.doc_to_target(d))
        for d in task.test_docs()
    ]


# What lm-eval makes of the first record above, written out by hand.
EXPECTED = {
    "mmlu": (
        "Which part is test anatomy 0?\nA. part 0\nB. the toe\nC. the ear\nD. the chin\nAnswer:",
        ["A", "B", "C", "D"],
        0,
    ),
    "bbh": ("Q: not not 0 is\nA:", None, "True"),
    "math": ("Problem: What is $0 + 1$ for test algebra?\nAnswer:", None, "1"),
    "arc_easy": (
        "Question: What warms the test pond 0?\nAnswer:",
        ["the sun", "a stone", "the moon"],
        0,
    ),
    "hellaswag": (
        "Baking: How to bake bread 0. Weigh the flour. Then",
        [" Add water.", "add salt: a lot.", "wait", "eat 0"],
        0,
    ),
    "piqa": ("Question: dry 0 socks\nAnswer:", ["hang them up ", "fold them wet"], 0),
    "lambada": ("She saw 0 boats.\n\nShe took  the red", None, " boat"),
    "blimp": ("", ["0 cats sleep.", "0 cats sleeps."], 0),
}


@pytest.mark.parametrize("role", EXPECTED)
@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_lm_eval_renders_a_document_as_written_by_hand(role, kind, request):
    documents = collected(request.getfixturevalue(kind), role)
    first = [d for d in documents if d["task"] == documents[0]["task"]]
    prompt, choices, target = _rendered(first)[0]
    assert (prompt, choices) == EXPECTED[role][:2]
    assert str(target) == str(EXPECTED[role][2])


def test_lm_eval_detokenises_an_article(folder):
    ((_, _, page), *_) = _rendered(collected(folder, "wikitext"))
    assert "The old mill, built in 1,850, stood by the river" in page
    assert "\n== Later ==\n" in page


def test_lm_eval_shuffles_gpqa_and_finds_the_right_answer(hub):
    documents = collected(hub, "gpqa", tasks="gpqa_diamond_zeroshot")
    assert {d["task"] for d in documents} == {"gpqa_diamond_zeroshot"}
    task = _own_task(documents)
    for shuffled in task.test_docs():
        assert task.doc_to_text(shuffled).startswith(
            "What is the correct answer to this question:Why"
        )
        assert shuffled[f"choice{'ABCD'.index(shuffled['answer'][1]) + 1}"] == "right"


def test_mmlus_examples_are_the_first_five_of_the_subjects_dev_split(folder):
    sets, _, _ = general.collect(folder, {"mmlu": {}}, seed=1)
    here = {s: [d for d in sets["mmlu"][s] if d["task"] == "mmlu_virology"] for s in sets["mmlu"]}
    task = _own_task(here["test"], here["fewshot"], num_fewshot=5)
    shown = task.fewshot_context(task.test_docs()[0], num_fewshot=5)
    asked = re.findall(r"Which part is (\w+ \w+ \d)\?", shown)
    assert asked == [f"dev virology {n}" for n in range(5)] + ["test virology 0"]
    assert re.findall(r"Answer: (\w)\n", shown) == ["A", "B", "C", "D", "A"]


def test_bbhs_examples_stand_in_lm_evals_own_definition(folder):
    documents = collected(folder, "bbh", tasks="bbh_cot_fewshot")
    assert {d["task"] for d in documents} == {
        f"bbh_cot_fewshot_{task}" for task in benchmarks._variants("bbh/cot_fewshot")
    }
    task = _own_task([d for d in documents if d["task"].endswith("_navigate")])
    shown = task.fewshot_context(task.test_docs()[0], num_fewshot=task.config.num_fewshot)
    assert shown.count("A: Let's think step by step.") == 4
    assert shown.endswith(
        "Q: " + made_up.RECORDS["bbh/navigate"][0]["input"] + "\nA: Let's think step by step.\n"
    )


def test_a_row_of_hellaswags_hub_is_asked_as_lm_eval_asks_it(hub):
    rows = [made_up.raw_hellaswag(r) | {"task": "hellaswag"} for r in made_up.hellaswag()]
    assert _rendered(collected(hub, "hellaswag")) == _rendered(rows)


_pieces = st.lists(
    st.sampled_from(["[header]", " [title]", "[step]", "  ", " ", "Stir", "a pot.", ": ", "\n"]),
    min_size=1,
).map("".join)


@given(_pieces, st.lists(_pieces, min_size=4, max_size=4))
def test_lm_evals_preprocessing_gives_back_any_text_that_it_made(query, endings):
    from lm_eval.tasks.hellaswag.utils import preprocess

    record = {"id": "hellaswag-0", "context": preprocess("Baking: Mix" + query), "answer": 3}
    record["choices"] = [preprocess(ending) for ending in endings]
    document = adapters.hellaswag(record, "")
    activity, context = document["activity_label"], document["ctx_a"]
    asked = preprocess(f"{activity}: {context} {document['ctx_b'].capitalize()}")
    assert asked == record["context"]
    assert [preprocess(ending) for ending in document["endings"]] == record["choices"]


@pytest.mark.parametrize("role", made_up.ROLES)
def test_both_sources_give_the_same_documents(role, folder, hub):
    settings = {role: {"test": 3, "validation": 1}}
    (from_folder, _, a), (from_hub, _, b) = (general.collect(s, settings, 1) for s in (folder, hub))
    assert a == b
    for split in ("test", "validation"):
        pair = from_folder[role][split], from_hub[role][split]
        if role == "math":  # the hub lacks the file numbers
            pair = [[d | {"id": None} for d in documents] for documents in pair]
        assert pair[0] == pair[1]


@pytest.mark.parametrize("name", pins.GENERAL)
def test_pins_name_what_lm_evals_tasks_name(name):
    tasks = {
        "mmlu": "mmlu_anatomy",
        "bbh": "bbh_zeroshot_navigate",
        "gpqa": "gpqa_main_zeroshot",
        "easy/lambada": "lambada_openai",
        "easy/blimp": "blimp_wh_island",
        "easy/wikitext2": "wikitext",
    }
    endings = {slug: f"hendrycks_math_{ending}" for slug, ending in adapters.MATH.values()}
    last = name.rpartition("/")[2]
    config = _own_yaml(tasks.get(name) or endings.get(last) or last)
    configuration = {
        "mmlu": "all",
        "bbh": config["dataset_name"],
        "gpqa": config["dataset_name"],
        "easy/blimp": config["dataset_name"],
    }
    assert pins.GENERAL[name]["repo"] == config["dataset_path"]
    stated = pins.GENERAL[name].get("name")
    asked = stated and stated.format(split=config["dataset_name"])
    assert asked == configuration.get(name, config["dataset_name"])


@pytest.mark.parametrize("family", ["hendrycks_math", "minerva_math"])
def test_every_subject_of_math_is_a_task_of_lm_eval(folder, family):
    names = {d["task"].removeprefix(f"{family}_") for d in collected(folder, "math", tasks=family)}
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    listed = (root / "hendrycks_math" / "hendrycks_math.yaml").read_text()
    assert names == set(re.findall(r"- hendrycks_math_(\w+)", listed))
    assert all((root / "minerva_math" / f"minerva_math_{name}.yaml").exists() for name in names)


def test_lm_eval_makes_the_real_hellaswags_own_queries_and_choices(real):
    source = Folder(real)
    found = source.records("easy/hellaswag", "validation_subset", {"context": str})
    documents = collected(source, "hellaswag")
    assert _rendered(documents) == [(r["context"], r["choices"], r["answer"]) for r in found]
