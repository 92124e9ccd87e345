"""lm-eval's own tasks over local lines, against lm-eval itself on the same documents; all of the
documents are written by hand."""

import json
import re
from pathlib import Path

import datasets
import lm_eval.tasks
import pytest
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lrmoclip.config.parts import Benchmark, Evaluation
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.core.files import write_jsonl
from lrmoclip.data.batches import framed
from lrmoclip.evaluate import internals
from lrmoclip.evaluate.harness import Evaluator
from lrmoclip.evaluate.tasks import load_tasks
from tests.support import ROOT
from tests.support.made import as_checkpoint, as_data
from tests.support.tinylm import byte_tokenizer, random_model

SETTINGS = Evaluation(batch_size=4, max_new_tokens=8)
METRICS = {
    "mmlu": "acc",
    "bbh": "exact_match",
    "math": "exact_match",
    "arc_easy": "acc_norm",
    "hellaswag": "acc_norm",
    "piqa": "acc",
    "lambada": "perplexity",
    "blimp": "acc",
    "wikitext": "word_perplexity",
}


def mmlu(task: str, number: int) -> dict:
    choices = [f"{number + i} cells" for i in range(4)]
    return {
        "task": f"mmlu_{task}", "question": f" What of {task} has {number}? ", "subject": task,
        "choices": choices, "answer": number % 4,
    }  # fmt: skip


def arc(number: int, labels: str) -> dict:
    texts = [f"the {word} of tower {number}" for word in ("signal", "rent", "colour", "end")]
    return {
        "task": "arc_easy", "question": f"What does tower {number} send?",
        "choices": {"text": texts[: len(labels)], "label": list(labels)}, "answerKey": labels[0],
    }  # fmt: skip


def blimp(task: str, number: int) -> dict:
    good, bad = (f"The {number} towers {verb} tall." for verb in ("are", "is"))
    return {"task": f"blimp_{task}", "sentence_good": good, "sentence_bad": bad}


def swag(number: int) -> dict:
    return {
        "task": "hellaswag", "activity_label": "Climbing", "ctx_a": f"A man climbs tower {number}.",
        "ctx_b": "he", "endings": ["falls [step] off.", "sings.", "waves at all.", "flies."],
        "label": str(number % 4),
    }  # fmt: skip


def piqa(number: int) -> dict:
    return {
        "task": "piqa", "goal": f"Reach the top of tower {number}", "sol1": "take the stairs",
        "sol2": "take the cellar", "label": number % 2,
    }  # fmt: skip


def algebra(number: int) -> dict:
    solution = rf"Add one: $\boxed{{{number + 1}}}$."
    return {
        "task": "hendrycks_math_algebra", "problem": f"What is ${number} + 1$?", "level": "Level 1",
        "type": "Algebra", "solution": solution,
    }  # fmt: skip


DOCUMENTS: dict[str, list[dict]] = {
    "mmlu": [
        mmlu(task, n) for task, count in (("anatomy", 3), ("virology", 2)) for n in range(count)
    ],
    "bbh": [
        {"task": f"bbh_{form}_{task}", "input": f"not {value} is", "target": str(not value)}
        for form, task in (("zeroshot", "boolean_expressions"), ("fewshot", "navigate"))
        for value in (True, False)
    ],
    "math": [algebra(n) for n in range(2)],
    "arc_easy": [arc(1, "ABCD"), arc(2, "1234"), arc(3, "ABC")],
    "hellaswag": [swag(n) for n in range(5)],
    "piqa": [piqa(n) for n in range(3)],
    "lambada": [
        {"task": "lambada_openai", "text": f"He saw the tower number {n} and climbed the tower"}
        for n in range(3)
    ],
    "blimp": [
        blimp(task, n) for task, count in (("causative", 3), ("passive_1", 2)) for n in range(count)
    ],
    "wikitext": [
        {"task": "wikitext", "page": " = A tower = \n \n It is 12 @,@ 000 cells tall . \n" * n}
        for n in (1, 4)
    ],
}
FEWSHOT = {"mmlu": [mmlu(task, 10 + n) for task in ("anatomy", "virology") for n in range(5)]}
BENCHMARKS = {r: Benchmark(task=r, kind="harness", metric=m) for r, m in METRICS.items()}
WITH_SHOTS = BENCHMARKS["mmlu"].model_copy(update={"num_fewshot": 5})


def write(folder: Path, documents: dict[str, list[dict]], name: str = "test") -> None:
    for role, records in documents.items():
        lines = [{"id": f"{role}-{i}", **record} for i, record in enumerate(records)]
        write_jsonl(folder / role / f"{name}.jsonl", lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    path = tmp_path_factory.mktemp("general")
    write(path, DOCUMENTS)
    write(path, FEWSHOT, "fewshot")
    return as_data(path)


@pytest.fixture
def plain(monkeypatch):
    """`plain(role, num_fewshot)`: what lm-eval itself finds when the hub has our documents."""
    asked = {}
    root = Path(lm_eval.tasks.__file__).parent
    folders = ["mmlu/default", "bbh", "hendrycks_math", "arc", "hellaswag", "piqa", "lambada"]
    manager = TaskManager(
        include_defaults=False, include_path=[root / f for f in [*folders, "blimp", "wikitext"]]
    )

    def load_dataset(path, name=None, **_):
        documents, shots = asked[path, name]
        shots = shots or documents
        kept = dict.fromkeys(["validation", "test"], datasets.Dataset.from_list(documents))
        kept["train"] = kept["test"]  # BLiMP has no other split
        return datasets.DatasetDict({**kept, "dev": datasets.Dataset.from_list(shots)})

    def run(role: str, num_fewshot: int | None = None) -> dict:
        names = list(dict.fromkeys(document["task"] for document in DOCUMENTS[role]))
        for name in names:
            config = manager.task_index[name].cfg
            found = [
                [
                    {"id": f"{role}-{i}", **{k: v for k, v in document.items() if k != "task"}}
                    for i, document in enumerate(source.get(role, []))
                    if document["task"] == name
                ]
                for source in (DOCUMENTS, FEWSHOT)
            ]
            asked[config["dataset_path"], config.get("dataset_name")] = found
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        lm = HFLM(pretrained=random_model(), tokenizer=byte_tokenizer(), batch_size=4)
        return simple_evaluate(
            lm, tasks=names, task_manager=manager, bootstrap_iters=0, num_fewshot=num_fewshot
        )

    return run


def evaluated(folder: Folder, benchmark: Benchmark) -> tuple[dict, list[dict], dict]:
    tasks = load_tasks([benchmark], folder, "test", SETTINGS)
    rows, items = Evaluator(tasks, "test", 4)(random_model(), byte_tokenizer())
    assert {row["benchmark"] for row in rows} == {benchmark.task}
    return {row["metric"]: row for row in rows}, items, tasks["tasks"]


def prompts(instances) -> list:
    return sorted(str(instance.args) for instance in instances)


@pytest.mark.parametrize("role", METRICS)
def test_prompts_and_scores_are_those_of_lm_eval(role, folder, plain):
    rows, _, tasks = evaluated(folder, BENCHMARKS[role])
    expected = plain(role)
    for name, task in tasks.items():
        arguments = [a for sample in expected["samples"][name] for a in sample["arguments"]]
        unfiltered = arguments[: len(task.instances)]  # each filter repeats its samples
        assert prompts(task.instances) == sorted(map(str, unfiltered))
    sizes = {name: len(list(task.test_docs())) for name, task in tasks.items()}
    first = {name: task._filters[0].name for name, task in tasks.items()}
    for metric, row in rows.items():
        keys = {n: metric if "," in metric else f"{metric},{first[n]}" for n in tasks}
        having = [name for name in tasks if keys[name] in expected["results"][name]]
        total = sum(sizes[name] for name in having)
        mean = sum(sizes[n] * expected["results"][n][keys[n]] for n in having) / total
        assert row["n"] == total
        assert row["value"] == pytest.approx(mean, rel=1e-4)
    assert METRICS[role] in rows


def test_fewshot_documents_come_from_their_file(folder, plain):
    _, _, tasks = evaluated(folder, WITH_SHOTS)
    expected = plain("mmlu", num_fewshot=5)
    for name, task in tasks.items():
        arguments = [a for sample in expected["samples"][name] for a in sample["arguments"]]
        assert prompts(task.instances) == sorted(map(str, arguments))
    assert "has 10?" in tasks["mmlu_anatomy"].instances[0].args[0]


def test_items_are_kept_where_a_metric_is_their_mean(folder):
    benchmarks = [BENCHMARKS[role] for role in ("blimp", "lambada", "wikitext")]
    tasks = load_tasks(benchmarks, folder, "test", SETTINGS)
    rows, items = Evaluator(tasks, "test", 4)(random_model(), byte_tokenizer())
    kept = {(item["benchmark"], item["metric"]) for item in items}
    assert kept == {("blimp", "acc"), ("lambada", "acc")}
    assert len({item["item"] for item in items}) == len(items)
    for row in rows:
        values = [
            item["value"]
            for item in items
            if (item["benchmark"], item["metric"]) == (row["benchmark"], row["metric"])
        ]
        if values:
            assert (row["value"], row["n"]) == (sum(values) / len(values), len(values))


def test_a_further_filter_is_named_behind_a_comma(folder):
    rows, _, _ = evaluated(folder, BENCHMARKS["bbh"])
    assert rows["exact_match"]["n"] == 4
    assert rows["exact_match,flexible-extract"]["n"] == 2  # zero-shot alone has it


def test_documents_are_processed_once_so_that_shuffled_options_keep_their_answer(tmp_path):
    wrong = {f"Incorrect Answer {i}": f"no {i}" for i in (1, 2, 3)}
    question = {
        "task": "gpqa_main_zeroshot",
        "Question": "Which?",
        "Correct Answer": "yes",
        **wrong,
    }
    write(tmp_path, {"gpqa": [question] * 20})
    benchmark = Benchmark(task="gpqa", kind="harness", metric="acc")
    places = []
    for _ in range(2):
        tasks = load_tasks([benchmark], as_data(tmp_path), "test", SETTINGS)["tasks"]
        task = tasks["gpqa_main_zeroshot"]
        first, second = list(task.test_docs()), list(task.test_docs())
        assert first == second
        for document in first:
            assert document[f"choice{'ABCD'.index(document['answer'][1]) + 1}"] == "yes"
        places.append([document["answer"] for document in first])
    assert places[0] == places[1] and len(set(places[0])) == 4


def test_the_chat_template_frames_every_prompt_as_training_does(folder):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{{ '' if enable_thinking else '<quiet>' }}"
        "{% endif %}"
    )
    tasks = load_tasks([BENCHMARKS["piqa"]], folder, "test", SETTINGS)
    Evaluator(tasks, "test", 4, chat=True)(random_model(), tokenizer)
    documents = [f"Question: {piqa(n)['goal']}\nAnswer:" for n in range(3)]
    seen = [instance.args[0] for instance in tasks["tasks"]["piqa"].instances]
    assert sorted(set(seen)) == sorted(framed(documents, tokenizer, chat=True))


def test_vllm_is_asked_for_where_it_is_absent(tmp_path):
    with pytest.raises(UserError, match="vllm"):
        Evaluator({}, "test", 4, backend="vllm").checkpoint(as_checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"task": "mmlu_astrology", "question": "?"}, "no task 'mmlu_astrology'"),
        ({"task": "piqa", "goal": "Reach the top"}, "not the documents of lm-eval's piqa"),
        ({"goal": "Reach the top"}, "line 1: no key 'task'"),
    ],
)
def test_lines_that_are_no_documents_are_said(document, words, tmp_path, monkeypatch):
    (tmp_path / "role").mkdir()
    (tmp_path / "role" / "test.jsonl").write_text(json.dumps({"id": "a", **document}) + "\n")
    if "astrology" in words:  # looked for among a few
        monkeypatch.setattr(internals, "TASKS", internals.TASKS / "mmlu/default")
    benchmark = Benchmark(task="role", kind="harness", metric="acc")
    with pytest.raises(UserError, match=words):
        load_tasks([benchmark], as_data(tmp_path), "test", SETTINGS)


def test_fewshot_documents_that_are_needed_are_asked_for(tmp_path):
    write(tmp_path, {"mmlu": [mmlu("anatomy", 1)]})
    with pytest.raises(UserError, match=r"fewshot\.jsonl: no documents of mmlu_anatomy"):
        load_tasks([WITH_SHOTS], as_data(tmp_path), "test", SETTINGS)


def test_lm_eval_is_of_the_version_whose_inside_is_used():
    import lm_eval

    assert lm_eval.__version__ == internals.VERSION


def test_no_other_file_uses_what_lm_eval_keeps_private():
    """By its words: no module or method of lm-eval's that begins with an underscore."""
    private = re.compile(r"lm_eval(\.\w+)*\._\w+|\._filters|_loglikelihood_tokens")
    for path in (ROOT / "lrmoclip").rglob("*.py"):
        assert path.name == "internals.py" or not private.search(path.read_text()), path
