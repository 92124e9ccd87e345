"""The harness on our tasks, against answers computed here from the model's own dense logits."""

import shutil

import pandas as pd
import pytest
import torch

from lrmoclip.cli.commands.evaluate import evaluate
from lrmoclip.config.parts import Benchmark, Evaluation
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import head_of
from lrmoclip.data import records
from lrmoclip.data.sql import judge
from lrmoclip.evaluate.harness import Evaluator, score
from lrmoclip.evaluate.likelihood import SharedContextLM
from lrmoclip.evaluate.tasks import load_tasks
from lrmoclip.models import checkpoints
from lrmoclip.report.kinds import EVALUATION
from tests.support.made import as_data, load, read_lines, reseal
from tests.support.tinylm import byte_tokenizer, random_model

SETTINGS, SHORT = (Evaluation(batch_size=4, max_new_tokens=n) for n in (9, 2))


@pytest.fixture(scope="module")
def outcome(tiny_base, tiny_data, tiny_scale):
    """Scores and items of the tiny base, and every batch that its forward saw."""
    model, tokenizer = load(tiny_base)
    head_of(model)  # its trial of the head is no evaluation
    fed = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append((*args, *kwargs.values())[0].shape), with_kwargs=True
    )
    benchmarks = [*tiny_scale.general.values(), *tiny_scale.domains.values()]
    tasks = load_tasks(benchmarks, records.folder(tiny_data), "test", tiny_scale.evaluation)
    evaluator = Evaluator(tasks, "test", batch_size=7)
    scores, items = evaluator(model, tokenizer)
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
    model, tokenizer = load(tiny_base)
    for task in ("micro_mmlu", "telecom"):
        right, exact = [], []
        for record in read_lines(tiny_data / task / "test.jsonl"):
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
    model, tokenizer = load(tiny_base)
    limit = tiny_scale.evaluation.max_new_tokens
    verdicts = []
    for record in read_lines(tiny_data / "nl2sql" / "test.jsonl"):
        database = tiny_data / "nl2sql" / "databases" / f"{record['database']}.sqlite"
        answer = greedy(model, tokenizer, record["prompt"], limit)
        verdicts.append(judge(database, answer, record["answer"]))
    found = outcome[0]
    correct = sum(v.correct for v in verdicts) / len(verdicts)
    invalid = sum(not v.valid for v in verdicts) / len(verdicts)
    assert found["nl2sql", "execution_accuracy"]["value"] == pytest.approx(correct)
    assert found["nl2sql", "invalid_sql"]["value"] == pytest.approx(invalid)


def test_gold_sql_would_score_100_and_broken_sql_0_and_invalid(tiny_data, tiny_scale):
    data, benchmark = records.folder(tiny_data), tiny_scale.domains["nl2sql"]
    tasks = load_tasks([benchmark], data, "test", tiny_scale.evaluation)
    task = tasks["tasks"]["nl2sql"]
    for doc in task.test_docs():
        perfect = {"execution_accuracy": 1.0, "exact_match": 1.0, "invalid_sql": 0.0}
        assert task.process_results(doc, [f" {doc['answer']} "]) == perfect
        broken = {"execution_accuracy": 0.0, "exact_match": 0.0, "invalid_sql": 1.0}
        assert task.process_results(doc, ["SELECT FROM"]) == broken


def test_one_forward_serves_all_choices_of_an_item(outcome, tiny_data):
    items = sum(
        len(read_lines(tiny_data / task / "test.jsonl")) for task in ("micro_mmlu", "telecom")
    )
    # Batches longer than one token that no generation made: its first has left padding too, so
    # count sequences fed in all against those of choices and prompts.
    prompts = sum(
        len(read_lines(tiny_data / task / "test.jsonl")) for task in ("micro_math", "nl2sql")
    )
    assert sum(shape[0] for shape in outcome[2] if shape[1] > 1) == items + prompts


def test_items_pair_between_models_and_average_to_the_scores(outcome, tiny_base):
    scores, items, _, evaluator = outcome
    other, tokenizer = load(tiny_base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    _, again = evaluator(other, tokenizer)
    key = ("benchmark", "split", "metric", "item")
    assert [tuple(i[k] for k in key) for i in items] == [tuple(i[k] for k in key) for i in again]
    for (benchmark, metric), row in scores.items():
        values = [i["value"] for i in items if (i["benchmark"], i["metric"]) == (benchmark, metric)]
        assert row["value"] == pytest.approx(sum(values) / len(values))


def test_the_main_score_is_in_percent_and_a_missing_one_is_said():
    rows = [{"benchmark": "t", "metric": "acc", "value": 0.25}]
    assert score(rows, Benchmark(task="t", kind="choice", metric="acc")) == 25.0
    with pytest.raises(UserError, match="no metric exact_match"):
        score(rows, Benchmark(task="t", kind="generate", metric="exact_match"))


def test_items_with_an_empty_gold_result_are_scored_apart(tiny_data, tmp_path):
    shutil.copytree(tiny_data / "nl2sql" / "databases", tmp_path / "nl2sql" / "databases")
    items = read_lines(tiny_data / "nl2sql" / "test.jsonl")[:3]
    for number, record in enumerate(items):
        record |= {"empty": number == 2, "alternatives": ["SELECT 1"] if number == 0 else []}
    files.write_jsonl(tmp_path / "nl2sql" / "test.jsonl", items)
    entry = Benchmark(task="nl2sql", kind="sql", metric="execution_accuracy", max_new_tokens=5)
    tasks = load_tasks([entry], as_data(tmp_path), "test", SETTINGS)
    task = tasks["tasks"]["nl2sql"]
    found = [task.process_results(doc, ["SELECT 1"]) for doc in task.test_docs()]
    assert found[0]["execution_accuracy"] == 1.0  # by the alternative
    assert found[1]["execution_accuracy"] == 0.0
    assert "execution_accuracy" not in found[2] and found[2]["execution_accuracy_empty"] == 0.0
    assert task.config.generation_kwargs["max_gen_toks"] == 5
    rows = {"execution_accuracy": 2, "execution_accuracy_empty": 1, "exact_match": 3}
    scores, _ = Evaluator(tasks, "test", 4)(random_model(), byte_tokenizer())
    assert {r["metric"]: r["n"] for r in scores} == {**rows, "invalid_sql": 3}


def test_choices_can_be_compared_by_their_likelihood_a_character(tmp_path):
    model, tokenizer = random_model(), byte_tokenizer()
    choices = ["the tower", "a tower by the other tower", "rent"]
    items = [
        {"id": f"q{n}", "prompt": f"What is {n}?", "answer": choices[n % 3], "choices": choices,
         "gold": n % 3}
        for n in range(6)
    ]  # fmt: skip
    files.write_jsonl(tmp_path / "telecom" / "test.jsonl", items)
    entry = Benchmark(task="telecom", kind="choice", metric="acc_norm")
    tasks = load_tasks([entry], as_data(tmp_path), "test", SETTINGS)
    scores, _ = Evaluator(tasks, "test", 4)(model, tokenizer)
    right = []
    for record in items:
        start = len(tokenizer(record["prompt"])["input_ids"])
        logps = []
        for choice in choices:
            ids = torch.tensor(tokenizer(f"{record['prompt']} {choice}")["input_ids"])
            with torch.no_grad():
                logp = model(ids[None]).logits[0].log_softmax(-1)
            logps.append(logp[range(start - 1, len(ids) - 1), ids[start:]].sum() / len(choice))
        right.append(int(torch.stack(logps).argmax()) == record["gold"])
    found = {row["metric"]: row["value"] for row in scores}
    assert found["acc_norm"] == pytest.approx(sum(right) / len(right))
    assert set(found) == {"acc", "exact_match", "acc_norm"}


@pytest.fixture(scope="module")
def base_scored(tmp_path_factory, tiny_scale, tiny_data, tiny_base):
    out = tmp_path_factory.mktemp("evaluated") / "telecom" / "base"
    evaluate(tiny_scale, "qwen3-s0", "telecom", "base", tiny_data, [tiny_base], [out], [0])
    return out


def test_the_base_says_where_it_is_above_chance(base_scored):
    record = files.read_sealed(base_scored / "metrics.json", EVALUATION)
    rows = {(r["benchmark"], r["metric"]): r for r in record["rows"]}
    assert list(record["screening"]) == ["mmlu", "math"]
    assert record["screening"]["mmlu"]["value"] == rows["micro_mmlu", "acc"]["value"]
    assert record["screening"]["math"]["above"] is (rows["micro_math", "exact_match"]["value"] > 0)


def test_a_method_is_scored_where_the_base_is_above_chance(
    base_scored, tiny_scale, tiny_data, tiny_base, tmp_path
):
    shutil.copy(base_scored / "metrics.json", tmp_path / "base.json")
    screened = {"mmlu": {"above": False}, "math": {"above": True}}
    reseal(tmp_path / "base.json", screening=screened)
    shutil.copytree(tiny_base, tmp_path / "model")
    of = checkpoints.of("tiny", "qwen3-s0", "telecom", "full_ft", 1)
    reseal(tmp_path / "model" / "manifest.json", **of)
    evaluate(
        tiny_scale, "qwen3-s0", "telecom", "full_ft", tiny_data, [tmp_path / "model"],
        [tmp_path / "out"], [1], base_metrics=tmp_path / "base.json",
    )  # fmt: skip
    found = files.read_sealed(tmp_path / "out" / "metrics.json", EVALUATION)
    assert {row["benchmark"] for row in found["rows"]} == {"micro_math", "telecom"}
    assert "screening" not in found


def test_general_scores_of_the_base_are_taken_over_from_another_domain(
    base_scored, tiny_scale, tiny_data, tiny_base, tmp_path
):
    general = {"micro_mmlu", "micro_math"}

    def scored(folder) -> tuple[list, pd.DataFrame, dict]:
        record = files.read_sealed(folder / "metrics.json", EVALUATION)
        items = pd.read_parquet(folder / "samples.parquet")
        rows = [row for row in record["rows"] if row["benchmark"] in general]
        kept = items[items["benchmark"].isin(general)].reset_index(drop=True)
        return rows, kept, record["screening"]

    arguments = (tiny_scale, "qwen3-s0", "nl2sql", "base", tiny_data, [tiny_base])
    evaluate(*arguments, [tmp_path / "out"], [0], general_from=base_scored / "metrics.json")
    rows, items, screening = scored(tmp_path / "out")
    expected_rows, expected_items, expected_screening = scored(base_scored)
    assert rows == expected_rows and screening == expected_screening
    pd.testing.assert_frame_equal(items, expected_items)
    found = files.read_sealed(tmp_path / "out" / "metrics.json", EVALUATION)["rows"]
    assert {row["benchmark"] for row in found} == {*general, "nl2sql"}
    shutil.copy(base_scored / "metrics.json", tmp_path)
    reseal(tmp_path / "metrics.json", base="other")
    with pytest.raises(UserError, match="not of the base qwen3-s0"):
        evaluate(*arguments, [tmp_path / "out"], [0], general_from=tmp_path / "metrics.json")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["Llama", "Gemma2"])  # the second is left to lm-eval
def test_likelihoods_and_generation_run_in_the_precision_asked_for(
    family, precision, tiny_data, tiny_scale
):
    seen, model = set(), random_model(family)
    model.base_model.layers[0].mlp.register_forward_hook(lambda _, args, out: seen.add(out.dtype))
    benchmarks = [tiny_scale.domains["telecom"], tiny_scale.general["math"]]
    tasks = load_tasks(benchmarks, records.folder(tiny_data), "test", SHORT)
    SharedContextLM(model, byte_tokenizer(), 4)  # tries the head, which is no evaluation
    seen.clear()
    Evaluator(tasks, "test", 4, precision=precision)(model, byte_tokenizer())
    assert seen == {getattr(torch, precision)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
