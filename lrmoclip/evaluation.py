"""Evaluates models with lm-evaluation-harness; tasks are loaded once for any number of models."""

from lrmoclip.errors import UserError


class Evaluator:
    """Scores models on a fixed set of tasks (`tasks.load_tasks`)."""

    def __init__(self, tasks: dict, split: str, batch_size: int) -> None:
        self.tasks, self.split, self.batch_size = tasks, split, batch_size

    def __call__(self, model, tokenizer) -> tuple[list[dict], list[dict]]:
        """(scores, items): rows of `benchmark, split, metric, value, n` with value from 0 to 1, and
        one row an item and metric of `benchmark, split, metric, item, value`.

        `item` hashes document and prompt, so that outcomes of different models can be paired.
        """
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=self.batch_size)
        samples = evaluate(lm, self.tasks, bootstrap_iters=0, log_samples=True)["samples"]
        items = [
            {
                "benchmark": task,
                "split": self.split,
                "metric": metric,
                "item": f"{sample['doc_hash'][:16]}{sample['prompt_hash'][:16]}",
                "value": float(sample[metric]),
            }
            for task, rows in samples.items()
            for sample in rows
            for metric in sample["metrics"]
        ]
        return _means(items), items


def _means(items: list[dict]) -> list[dict]:
    values: dict[tuple, list[float]] = {}
    for item in items:
        key = (item["benchmark"], item["split"], item["metric"])
        values.setdefault(key, []).append(item["value"])
    return [
        dict(zip(("benchmark", "split", "metric"), key, strict=True))
        | {"value": sum(found) / len(found), "n": len(found)}
        for key, found in values.items()
    ]


def score(scores: list[dict], benchmark: dict) -> float:
    """The main metric of a benchmark (an entry of `general` or `domains`) in percent."""
    for row in scores:
        if (row["benchmark"], row["metric"]) == (benchmark["task"], benchmark["metric"]):
            return 100 * row["value"]
    raise UserError(f"{benchmark['task']}: no metric {benchmark['metric']} among its scores")
