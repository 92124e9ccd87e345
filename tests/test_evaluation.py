"""The harness on our tasks, against answers computed here from the model's own dense logits."""

import copy

import pytest
import torch

from lrmoclip import checkpoints
from lrmoclip.errors import UserError
from lrmoclip.evaluation import Evaluator, score
from lrmoclip.files import read_jsonl
from lrmoclip.sql import judge
from lrmoclip.tasks import load_tasks


@pytest.fixture(scope="module")
def outcome(tiny_base, tiny_data, tiny_scale):
    """Scores and items of the tiny base, and every batch that its forward saw."""
    model = checkpoints.load_model(tiny_base)
    fed = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append((*args, *kwargs.values())[0].shape), with_kwargs=True
    )
    benchmarks = [*tiny_scale["general"].values(), *tiny_scale["domains"].values()]
    tasks = load_tasks(benchmarks, tiny_data, "test", tiny_scale["evaluation"])
    evaluator = Evaluator(tasks, "test", batch_size=7)
    scores, items = evaluator(model, checkpoints.load_tokenizer(tiny_base))
    return {(r["benchmark"], r["metric"]): r for r in scores}, items, fed, evaluator


@torch.no_grad()
def greedy(model, tokenizer, prompt: str, limit: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(limit):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
        if ids[0, -1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True)


def test_choices_and_greedy_answers_are_those_of_the_dense_logits(outcome, tiny_base, tiny_data):
    model, tokenizer = checkpoints.load_model(tiny_base), checkpoints.load_tokenizer(tiny_base)
    for task in ("micro_mmlu", "telecom"):
        right, exact = [], []
        for record in read_jsonl(tiny_data / task / "test.jsonl"):
            ids = tokenizer(record["prompt"], return_tensors="pt")["input_ids"]
            with torch.no_grad():
                last = model(ids).logits[0, -1]
            options = [tokenizer(c)["input_ids"][0] for c in record["choices"]]
            right.append(int(last[options].argmax()) == record["gold"])
            exact.append(int(last.argmax()) == options[record["gold"]])
        assert outcome[0][task, "acc"]["value"] == pytest.approx(sum(right) / len(right))
        assert outcome[0][task, "exact_match"]["value"] == pytest.approx(sum(exact) / len(exact))
        assert outcome[0][task, "acc"]["n"] == len(right)


def test_generated_sql_is_judged_by_execution(outcome, tiny_base, tiny_data, tiny_scale):
    model, tokenizer = checkpoints.load_model(tiny_base), checkpoints.load_tokenizer(tiny_base)
    limit = tiny_scale["evaluation"]["max_new_tokens"]
    verdicts = []
    for record in read_jsonl(tiny_data / "nl2sql" / "test.jsonl"):
        database = tiny_data / "nl2sql" / "databases" / f"{record['database']}.sqlite"
        answer = greedy(model, tokenizer, record["prompt"], limit)
        verdicts.append(judge(database, answer, record["answer"]))
    found = outcome[0]
    correct = sum(v.correct for v in verdicts) / len(verdicts)
    invalid = sum(not v.valid for v in verdicts) / len(verdicts)
    assert found["nl2sql", "execution_accuracy"]["value"] == pytest.approx(correct)
    assert found["nl2sql", "invalid_sql"]["value"] == pytest.approx(invalid)


def test_gold_sql_would_score_100_and_broken_sql_0_and_invalid(tiny_data, tiny_scale):
    tasks = load_tasks(
        [tiny_scale["domains"]["nl2sql"]], tiny_data, "test", tiny_scale["evaluation"]
    )
    task = tasks["tasks"]["nl2sql"]
    for doc in task.test_docs():
        perfect = {"execution_accuracy": 1.0, "exact_match": 1.0, "invalid_sql": 0.0}
        assert task.process_results(doc, [f" {doc['answer']} "]) == perfect
        broken = {"execution_accuracy": 0.0, "exact_match": 0.0, "invalid_sql": 1.0}
        assert task.process_results(doc, ["SELECT FROM"]) == broken


def test_one_forward_serves_all_choices_of_an_item(outcome, tiny_data):
    items = sum(
        len(read_jsonl(tiny_data / task / "test.jsonl")) for task in ("micro_mmlu", "telecom")
    )
    # Batches longer than one token that no generation made: its first has left padding too, so
    # count sequences fed in all against those of choices and prompts.
    prompts = sum(
        len(read_jsonl(tiny_data / task / "test.jsonl")) for task in ("micro_math", "nl2sql")
    )
    assert sum(shape[0] for shape in outcome[2] if shape[1] > 1) == items + prompts


def test_items_pair_between_models_and_average_to_the_scores(outcome, tiny_base):
    scores, items, _, evaluator = outcome
    other = copy.deepcopy(checkpoints.load_model(tiny_base))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    _, again = evaluator(other, checkpoints.load_tokenizer(tiny_base))
    key = ("benchmark", "split", "metric", "item")
    assert [tuple(i[k] for k in key) for i in items] == [tuple(i[k] for k in key) for i in again]
    for (benchmark, metric), row in scores.items():
        values = [i["value"] for i in items if (i["benchmark"], i["metric"]) == (benchmark, metric)]
        assert row["value"] == pytest.approx(sum(values) / len(values))


def test_the_main_score_is_in_percent_and_a_missing_one_is_said():
    rows = [{"benchmark": "t", "metric": "acc", "value": 0.25}]
    assert score(rows, {"task": "t", "metric": "acc"}) == 25.0
    with pytest.raises(UserError, match="no metric exact_match"):
        score(rows, {"task": "t", "metric": "exact_match"})
