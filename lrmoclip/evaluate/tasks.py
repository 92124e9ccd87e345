"""Benchmarks as lm-evaluation-harness tasks over our JSON Lines files: lm-eval's own tasks, choices
by log-likelihood, generated answers by exact match, SQL by execution."""

import logging
import random
from operator import itemgetter
from pathlib import Path

from lrmoclip.config.parts import Benchmark, Evaluation
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.data import records
from lrmoclip.data.batches import framed
from lrmoclip.data.sql import judge

_HINT = "Make the data again with this version"


def load_tasks(benchmarks: list[Benchmark], data: Folder, split: str, settings: Evaluation) -> dict:
    """lm-eval's task dictionary for `split` of each benchmark, and under `roles` the benchmark of
    each of lm-eval's own tasks.

    benchmarks: entries of the scale's `general` and `domains` (task, kind). data: the scale's data
    folder. settings: the scale's `evaluation`. UserError for records that a task can't use.
    """
    from lm_eval.tasks import TaskManager

    # The harness warns about every default that it falls back on, and of data sets from memory.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    configs, harness, roles = [], [], {}
    for benchmark in benchmarks:
        task, kind = benchmark.task, benchmark.kind
        if kind == "harness":
            tasks = _harness(data, task, split, benchmark.num_fewshot)
            harness += tasks
            roles |= {each.task_name: task for each in tasks}
            continue
        path = data.file(records.split_of(task, split))
        items = records.read(path, records.NEEDED[kind])
        make = {"choice": _choice, "generate": _generate, "sql": _sql}[kind]
        configs.append(
            {
                "task": task,
                "custom_dataset": _as_dataset({split: items}),
                "test_split": split,
                "doc_to_text": itemgetter("prompt"),  # the harness's templates are slower
                "doc_to_target": itemgetter("answer"),
                **make(data, benchmark, settings),
            }
        )
    loaded = TaskManager(include_defaults=False).load(configs)
    loaded["tasks"] |= {task.task_name: task for task in harness}
    return {**loaded, "roles": roles}


def check_room(loaded: dict, tokenizer, context: int, chat: bool = False) -> None:
    """Refuse tasks of which something would be cut off unseen: an item of ours whose prompt leaves
    no room in the context for its answer, or generation as long as the context.

    loaded: of `load_tasks`. chat: as for `batches.framed`.
    """
    for name, task in loaded["tasks"].items():
        most = 0
        if task.config.output_type == "generate_until":
            most = task.config.generation_kwargs.get("max_gen_toks", 0)  # else lm-eval's own
        if most >= context:
            raise UserError(
                f"{name}: max_new_tokens {most}, but the model reads {context} tokens, with the "
                "prompt",
                "Lower evaluation.max_new_tokens",
            )
        if name in loaded["roles"]:  # lm-eval's own: what it cuts off is part of the benchmark
            continue
        items = list(task.test_docs())
        prompts = framed([item["prompt"] for item in items], tokenizer, chat)
        lengths = map(len, tokenizer(prompts)["input_ids"])
        for item, length in zip(items, lengths, strict=True):
            options = [] if most else item["choices"]
            longest = max(map(len, tokenizer(options)["input_ids"])) if options else most
            if length + longest > context:
                raise UserError(
                    f"{name}, record {item['id']}: {length} tokens and {longest} of an answer, the "
                    f"model reads {context}",
                    "Shorten it, or leave it out of the data",
                )


def _as_dataset(splits: dict[str, list[dict]]):
    from datasets import Dataset, DatasetDict

    # From memory: nothing is written to a cache, and nothing asks the hub.
    return lambda **_: DatasetDict({k: Dataset.from_list(v) for k, v in splits.items()})


def _harness(data: Folder, role: str, split: str, num_fewshot: int | None) -> list:
    """lm-eval's own tasks, prompts, filters and metrics as they are, over the documents of `role`.

    A line is a document as the task's hub data set has it, with `task`, lm-eval's name. Few-shot
    documents that a task draws from a split come from `fewshot.jsonl`; their number is the task's
    own where `num_fewshot` is None.
    """
    path, examples = (records.split_of(role, part) for part in (split, "fewshot"))
    documents = _by_task(data.file(path))
    shots = _by_task(data.file(examples)) if examples in data else {}
    tasks = []
    for name, found in documents.items():
        config = _own_config(name, data.path / path)
        splits = {"test": found} | ({"fewshot": shots[name]} if name in shots else {})
        config |= {
            "custom_dataset": _as_dataset(splits),
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
            "fewshot_split": "fewshot" if name in shots else None,
        }
        if num_fewshot is not None:
            config["num_fewshot"] = num_fewshot
        if process := config.get("process_docs"):
            config["process_docs"] = _once(process)
        drawn = not (config.get("fewshot_config") or {}).get("samples")
        if config.get("num_fewshot") and drawn and name not in shots:
            raise UserError(
                f"{data.path / examples}: no documents of {name}, which needs some", _HINT
            )
        tasks.append(_built(config, data.path / path))
    return tasks


def _built(config: dict, path: Path):
    from lm_eval.api.task import ConfigurableTask

    try:
        return ConfigurableTask(config=config)  # it tries its first document
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not the documents of lm-eval's {config['task']} ({error!r})", _HINT
        ) from error


def _by_task(path: Path) -> dict[str, list[dict]]:
    tasks: dict[str, list[dict]] = {}
    for document in records.read_documents(path):
        tasks.setdefault(document.pop("task"), []).append(document)
    return tasks


def _own_config(name: str, path: Path) -> dict:
    """The configuration of lm-eval's task `name`, its functions resolved."""
    from lrmoclip.evaluate.internals import own_config

    try:
        config = own_config(name)
    except (ImportError, AssertionError) as error:  # the latter for a wrong version
        raise UserError(
            f"{name}: lm-eval's task needs {error}", "Install lm-eval's extra for it"
        ) from error
    if config is None:
        raise UserError(f"{path}: lm-eval has no task {name!r}", _HINT)
    return config


def _once(process):
    """`process_docs`, run once for each data set: GPQA's shuffles the options at every call."""
    done: dict[int, tuple] = {}

    def processed(documents):
        if id(documents) not in done:
            random.seed(0)  # as lm-eval's command line does before it loads the tasks
            done[id(documents)] = documents, process(documents)
        return done[id(documents)][1]

    return processed


def _choice(data: Folder, benchmark: Benchmark, settings: Evaluation) -> dict:
    """`acc` compares the options, `acc_norm` their log-likelihood a character; `exact_match` asks
    whether gold is the greedy answer over the whole vocabulary."""
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": itemgetter("choices"),
        "doc_to_target": itemgetter("gold"),
        "metric_list": _metrics(*dict.fromkeys(["acc", "exact_match", benchmark.metric])),
    }


def _generate(data: Folder, benchmark: Benchmark, settings: Evaluation) -> dict:
    return {
        "output_type": "generate_until",
        "generation_kwargs": _greedy(benchmark.max_new_tokens or settings.max_new_tokens),
        "process_results": lambda doc, results: {
            "exact_match": float(results[0].strip() == doc["answer"])
        },
        "metric_list": _metrics("exact_match"),
    }


def _sql(data: Folder, benchmark: Benchmark, settings: Evaluation) -> dict:
    """`execution_accuracy` (docs/sql.md) is over the items whose gold query returns rows. An empty
    result is easily right by accident, so the items marked `empty` have `execution_accuracy_empty`
    instead.
    """

    def score(doc: dict, results: list[str]) -> dict[str, float]:
        predicted = results[0].strip()
        database = data.file(f"{benchmark.task}/databases/{doc['database']}.sqlite")
        verdict = judge(database, predicted, doc["answer"], *(doc.get("alternatives") or ()))
        accuracy = "execution_accuracy_empty" if doc.get("empty") else "execution_accuracy"
        return {
            accuracy: float(verdict.correct),
            "exact_match": float(predicted == doc["answer"]),
            "invalid_sql": float(not verdict.valid),
        }

    return {
        "output_type": "generate_until",
        "generation_kwargs": _greedy(benchmark.max_new_tokens or settings.max_new_tokens),
        "process_results": score,
        "metric_list": _metrics(
            "execution_accuracy", "execution_accuracy_empty", "exact_match", "invalid_sql"
        ),
    }


def _greedy(most: int) -> dict:
    return {"do_sample": False, "max_gen_toks": most, "until": ["\n"]}


def _metrics(*names: str) -> list[dict]:
    return [
        {"metric": n, "aggregation": "mean", "higher_is_better": n != "invalid_sql"} for n in names
    ]
