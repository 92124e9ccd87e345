"""Benchmarks as lm-evaluation-harness tasks over our JSON Lines files: choices by log-likelihood,
generated answers by exact match, SQL by execution."""

import logging
from operator import itemgetter
from pathlib import Path

from lrmoclip.files import read_jsonl
from lrmoclip.sql import judge


def load_tasks(benchmarks: list[dict], data: Path, split: str, settings: dict) -> dict:
    """lm-eval's task dictionary for `split` of each benchmark.

    benchmarks: entries of the scale's `general` and `domains` (task, kind). data: the scale's data
    folder. settings: the scale's `evaluation`.
    """
    from lm_eval.tasks import TaskManager

    # The harness warns about every default that it falls back on, and of data sets from memory.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    configs = []
    for benchmark in benchmarks:
        folder = Path(data) / benchmark["task"]
        make = {"choice": _choice, "generate": _generate, "sql": _sql}[benchmark["kind"]]
        records = read_jsonl(folder / f"{split}.jsonl")
        configs.append(
            {
                "task": benchmark["task"],
                "custom_dataset": _as_dataset(records, split),
                "test_split": split,
                "doc_to_text": itemgetter("prompt"),  # the harness's templates are slower
                "doc_to_target": itemgetter("answer"),
                **make(folder, settings),
            }
        )
    return TaskManager(include_defaults=False).load(configs)


def _as_dataset(records: list[dict], split: str):
    from datasets import Dataset, DatasetDict

    # From memory: nothing is written to a cache, and nothing asks the hub.
    return lambda **_: DatasetDict({split: Dataset.from_list(records)})


def _choice(folder: Path, settings: dict) -> dict:
    """`acc` compares the options; `exact_match` asks whether gold is the greedy answer over the
    whole vocabulary."""
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": itemgetter("choices"),
        "doc_to_target": itemgetter("gold"),
        "metric_list": _metrics("acc", "exact_match"),
    }


def _generate(folder: Path, settings: dict) -> dict:
    return {
        "output_type": "generate_until",
        "generation_kwargs": _greedy(settings),
        "process_results": lambda doc, results: {
            "exact_match": float(results[0].strip() == doc["answer"])
        },
        "metric_list": _metrics("exact_match"),
    }


def _sql(folder: Path, settings: dict) -> dict:
    def score(doc: dict, results: list[str]) -> dict[str, float]:
        predicted = results[0].strip()
        database = folder / "databases" / f"{doc['database']}.sqlite"
        verdict = judge(database, predicted, doc["answer"])
        return {
            "execution_accuracy": float(verdict.correct),
            "exact_match": float(predicted == doc["answer"]),
            "invalid_sql": float(not verdict.valid),
        }

    return {
        "output_type": "generate_until",
        "generation_kwargs": _greedy(settings),
        "process_results": score,
        "metric_list": _metrics("execution_accuracy", "exact_match", "invalid_sql"),
    }


def _greedy(settings: dict) -> dict:
    return {"do_sample": False, "max_gen_toks": settings["max_new_tokens"], "until": ["\n"]}


def _metrics(*names: str) -> list[dict]:
    return [
        {"metric": n, "aggregation": "mean", "higher_is_better": n != "invalid_sql"} for n in names
    ]
