"""Evaluates models with lm-evaluation-harness; tasks are loaded once for any number of models."""

from lrmoclip.config import Scale
from lrmoclip.config.parts import Benchmark
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.core.precision import autocast, chosen
from lrmoclip.evaluate.tasks import check_room, load_tasks
from lrmoclip.models import checkpoints

_FEWSHOT_SEED = 1234  # lm-eval's own


class Evaluator:
    """Scores models on a fixed set of tasks (`tasks.load_tasks`).

    precision: of forward passes. chat: whether prompts are framed by the tokenizer's template, as
    `batches.framed` does. backend: hf, or vllm, which reads checkpoints alone.
    """

    def __init__(
        self, tasks: dict, split: str, batch_size: int, *,
        precision: str = "float32", chat: bool = False, backend: str = "hf",
    ) -> None:  # fmt: skip
        self.tasks, self.split, self.batch_size = tasks, split, batch_size
        self.precision, self.chat, self.backend = precision, chat, backend
        self.thinking = False if chat else None

    @classmethod
    def of(cls, scale: Scale, benchmarks: list[Benchmark], data: Folder, split: str) -> "Evaluator":
        """One for these benchmarks with the scale's settings."""
        return cls(
            load_tasks(benchmarks, data, split, scale.evaluation),
            split,
            scale.evaluation.batch_size,
            precision=chosen(scale.precision),
            chat=scale.prompting.chat_template,
            backend=scale.evaluation.backend,
        )

    def checkpoint(self, folder: Folder) -> tuple[list[dict], list[dict]]:
        """As a call with the model and the tokenizer of a checkpoint."""
        if self.backend == "vllm":
            return self._score(self._vllm(folder))
        tokenizer, model = checkpoints.load_tokenizer(folder), checkpoints.load_model(folder)
        checkpoints.check_pair(folder, model, tokenizer)
        return self(model, tokenizer)

    def __call__(self, model, tokenizer) -> tuple[list[dict], list[dict]]:
        """(scores, items): rows of `benchmark, split, metric, value, n` and, for each metric that
        is a mean over items, one row an item of `benchmark, split, metric, item, value`.

        Values are from 0 to 1, but for perplexities, aggregated over the corpus as lm-eval does.
        Tasks of one role are pooled, so each weighs by its items. A task's first filter gives the
        metric its plain name, a further one is named behind a comma. `item` hashes document and
        prompt, so that outcomes of different models can be paired.
        """
        from lrmoclip.evaluate.likelihood import SharedContextLM

        check_room(self.tasks, tokenizer, checkpoints.context(model.config), self.chat)
        lm = SharedContextLM(
            model,
            tokenizer,
            self.batch_size,
            enable_thinking=self.thinking,
            mixed_precision_dtype=None if self.precision == "float32" else self.precision,
        )
        # Within one context a weight is cast once, not at every batch.
        with autocast(self.precision, model.device):
            return self._score(lm)

    def _vllm(self, folder: Folder):
        try:
            from lm_eval.models.vllm_causallms import VLLM
        except ImportError as error:
            raise UserError(
                f"evaluation.backend: vllm cannot be used ({error})",
                "Install it with pip install 'lm-eval[vllm]==0.4.13', or set backend: hf",
            ) from None
        context = checkpoints.context(checkpoints.config_of(folder))
        check_room(self.tasks, checkpoints.load_tokenizer(folder), context, self.chat)
        return VLLM(str(folder.whole()), dtype=self.precision, enable_thinking=self.thinking)

    def _score(self, lm) -> tuple[list[dict], list[dict]]:
        from lm_eval.api.metrics import mean
        from lm_eval.evaluator import evaluate

        from lrmoclip.evaluate.internals import filters

        tasks, roles = self.tasks["tasks"], self.tasks["roles"]
        for task in tasks.values():
            task.set_fewshot_seed(_FEWSHOT_SEED)  # the same examples for every model
        results = evaluate(lm, {"tasks": tasks}, bootstrap_iters=0, apply_chat_template=self.chat)
        pooled: dict[tuple, tuple] = {}
        items = []
        for name, sample in ((n, sample) for n in tasks for sample in results["samples"][n]):
            benchmark, task = roles.get(name, name), tasks[name]
            suffix = "" if sample["filter"] == filters(task)[0] else f",{sample['filter']}"
            for metric in sample["metrics"]:
                value, combine = sample[metric], task.aggregation().get(metric, mean)
                key = {"benchmark": benchmark, "split": self.split, "metric": metric + suffix}
                pooled.setdefault(tuple(key.values()), (key, combine, []))[-1].append(value)
                if combine is mean:
                    item = f"{sample['doc_hash'][:16]}{sample['prompt_hash'][:16]}"
                    items.append({**key, "item": item, "value": float(value)})
        return [
            {**key, "value": float(combine(values)), "n": len(values)}
            for key, combine, values in pooled.values()
        ], items


def score(scores: list[dict], benchmark: Benchmark, metric: str | None = None) -> float:
    """A metric of a benchmark, else its main one, in percent."""
    metric = metric or benchmark.metric
    for row in scores:
        if (row["benchmark"], row["metric"]) == (benchmark.task, metric):
            return 100 * row["value"]
    raise UserError(f"{benchmark.task}: no metric {metric} among its scores")
