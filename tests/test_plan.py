"""Predictions against what they predict: parameters of real models, an allocator's peak, kept
measurements; what must grow with what; and refusals that say what would fit."""

import copy
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrmoclip.cli import commands
from lrmoclip.config import scale as config
from lrmoclip.core.errors import UserError
from lrmoclip.cost import devices, plan, plan_check
from lrmoclip.cost.footprint import (
    Part,
    Setting,
    Shape,
    fisher_memory,
    run_memory,
    shape_of,
    training_flops,
    training_memory,
)
from lrmoclip.cost.jobs import Jobs
from lrmoclip.cost.workload import Load, Workload
from lrmoclip.data.batches import collate
from lrmoclip.methods.objectives import fisher_diagonal
from lrmoclip.report.tables import KEYS, TABLE1
from lrmoclip.speed.steps import records
from lrmoclip.train.training import Run, Source
from tests.conftest import DROP, METHODS, TINY, Allocations
from tests.support.made import as_checkpoint
from tests.test_training import POINT, SETTINGS

CONFIGS = METHODS.parent
DEVICES = CONFIGS / "devices.yaml"
REFERENCE = Path(__file__).parents[1] / "results" / "reference"
SMALL = {
    "vocab_size": 2048,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_attention_heads": 3,
    "num_hidden_layers": 3,
    "tie_word_embeddings": True,
}
GROUPED = {**SMALL, "num_key_value_heads": 1, "head_dim": 32}
FAMILIES = {
    "qwen3": {**GROUPED, "model_type": "qwen3"},
    "untied": {**GROUPED, "model_type": "qwen3", "tie_word_embeddings": False},
    "llama": {**GROUPED, "model_type": "llama"},
    "gpt_neox": {**SMALL, "model_type": "gpt_neox"},
}
QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
SMOLLM2 = {  # as its config.json says
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
EWC = {**POINT, "penalty": {"name": "ewc", "strength": 1.0}}
REPLAY = {**POINT, "replay": 0.5}
LORA = {**POINT, "adapter": {"name": "lora", "rank": 4, "alpha": 8}}
GB = 1e9


def shape(architecture: dict) -> Shape:
    return shape_of(Path("a.yaml"), "base", {"architecture": architecture})


def build(architecture: dict):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))


@pytest.fixture(scope="module")
def known() -> dict[str, devices.Device]:
    return devices.load(DEVICES)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family):
    model, found = build(FAMILIES[family]), shape(FAMILIES[family])

    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.block == sum(p.numel() for p in model.base_model.layers[0].parameters())
    assert (found.layers, found.d, found.vocabulary, found.f) == (3, 96, 2048, 256)


def test_published_models_have_their_published_size():
    small = {**QWEN3, "hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True}
    large = {**QWEN3, "hidden_size": 4096, "intermediate_size": 12288}

    assert shape(small).parameters == pytest.approx(4.02e9, rel=1e-3)
    assert shape({**large, "tie_word_embeddings": False}).parameters == pytest.approx(8.19e9, 1e-3)
    assert shape(SMOLLM2).parameters == 134_515_008


def measured_peak(family: str, method: dict, setting: Setting, share: float) -> tuple[int, float]:
    """(bytes at most at a time, bytes predicted) of two real steps of six records of 48 tokens, the
    base and what EWC brings along left out of both."""
    architecture, size, length = FAMILIES[family], 6, 48
    base = build(architecture)
    data = records(architecture["vocab_size"], size, length, share)
    fisher = {name: torch.ones_like(p) for name, p in base.named_parameters()}
    said = {**SETTINGS, "batch_size": size, "gradient_checkpointing": setting.checkpointing}
    with Allocations() as seen:
        run = Run(
            copy.deepcopy(base), method, said, 1e-4, 1, Source(data), Source(data), fisher,
            telemetry=False, precision=setting.precision,
        )  # fmt: skip
        for _ in range(2):
            run.step()
    supervised = round(share * length)
    part = Part(size, length, length, supervised, supervised)
    parts = [part, replace(part, records=size / 2)] if method["replay"] else [part]
    found = shape(architecture)
    brought = (2 if method["penalty"]["name"] == "ewc" else 1) * 4 * found.parameters
    return seen.peak, training_memory(found, method, parts, setting) - brought


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_memory_is_the_allocators_peak(family, precision):
    measured, predicted = measured_peak(family, POINT, Setting(precision), share=0.25)

    assert predicted == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize(
    ("method", "setting", "share", "within"),
    [
        (POINT, Setting("float32"), 1.0, 0.08),  # the logits outweigh everything else
        (POINT, Setting("bfloat16", checkpointing=True), 0.25, 0.15),
        (EWC, Setting("float32"), 0.25, 0.08),
        (REPLAY, Setting("float32"), 0.25, 0.08),
        (LORA, Setting("float32"), 0.25, 0.25),  # frozen norms keep less than is counted
    ],
)
def test_predicted_memory_follows_method_and_setting(method, setting, share, within):
    measured, predicted = measured_peak("qwen3", method, setting, share)

    assert predicted == pytest.approx(measured, rel=within)


def test_the_fisher_holds_one_gradient_at_a_time():
    deep = {**FAMILIES["qwen3"], "num_hidden_layers": 24}
    base, found = build(deep), shape(deep)
    data, length = records(found.vocabulary, 2, 12, 0.25), 12
    batches = [collate(data, [i]) for i in range(2)]
    with Allocations() as seen:
        fisher_diagonal(base, batches, torch.Generator().manual_seed(0))

    predicted = fisher_memory(found, POINT, Part(1, length, length, 3, 3), "float32")
    weights = 4 * found.parameters  # there before
    assert predicted - weights == pytest.approx(seen.peak, rel=0.1)
    assert seen.peak < 2 * weights  # squares and all gradients, which was too much for Qwen3-8B


parts = st.builds(
    lambda records, longest, share: Part(records, longest, longest, share * longest, longest),
    st.integers(1, 64),
    st.integers(8, 4096),
    st.floats(0.01, 1),
)
set_ups = st.builds(
    Setting,
    st.sampled_from(["float32", "bfloat16"]),
    st.integers(1, 16),
    st.booleans(),
    st.just(0.0),
    st.integers(1, 4),
)
methods = st.sampled_from([POINT, EWC, LORA])


@given(methods, parts, set_ups, st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_memory_falls_with_gpus_and_checkpointing_and_grows_with_context(method, part, set_up, k):
    big = shape({**SMOLLM2})

    def needed(part: Part, set_up: Setting) -> float:
        return training_memory(big, method, [part], set_up)

    # From one GPU to two, whole layers come on top; from there on shards only shrink.
    shared = replace(set_up, gpus=max(2, set_up.gpus))
    assert needed(part, replace(shared, gpus=k * shared.gpus)) <= needed(part, shared)
    plain = replace(set_up, checkpointing=False)
    assert needed(part, replace(set_up, checkpointing=True)) <= needed(part, plain)
    longer = replace(part, longest=k * part.longest, padded=k * part.padded)
    assert needed(longer, set_up) >= needed(part, set_up)
    assert needed(replace(part, records=k * part.records), set_up) >= needed(part, set_up)


def test_attention_is_what_a_longer_context_adds():
    found, setting = shape(SMOLLM2), Setting("float32")
    short, long = (Part(8 // n, 100 * n, 100 * n, 10 * n, 10 * n) for n in (1, 2))
    flops = [training_flops(found, POINT, [part], setting) for part in (short, long)]

    assert flops[1] - flops[0] == pytest.approx(800 * 12 * 30 * 576 * 100)  # tokens 12 L q dT


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_padding_is_the_expected_largest_of_a_batch(lengths, batch):
    lengths = sorted(lengths)
    load = Load(len(lengths), sum(lengths) / len(lengths), 1, lengths[-1], 1, tuple(lengths))
    draws = list(itertools.product(lengths, repeat=batch))

    expected = sum(map(max, draws)) / len(draws)
    assert load.padded(batch) == pytest.approx(expected if len(lengths) > 1 else lengths[0])
    assert load.padded(batch, bucketed=True) == pytest.approx(load.tokens)


@pytest.fixture(scope="module")
def paper() -> Workload:
    return Workload(config.load(CONFIGS / "paper.yaml"))


@pytest.fixture(scope="module")
def planned(paper, known) -> pd.DataFrame:
    return plan.plan(paper, [known["h100-80gb"], known["rtx-4090"]])


def test_the_plan_has_every_rule_of_every_method(planned, paper):
    scale = paper.scale
    domains = [name for name, said in scale["domains"].items() if not said.get("optional")]

    assert list(planned.columns) == plan.PLAN
    trained = planned[(planned["rule"] == "train") & (planned["device"] == "h100-80gb")]
    assert len(trained) == len(scale["bases"]) * len(domains) * len(scale["methods"])
    assert {"base", "fisher", "stage0", "evaluate", "evaluate_base"} <= set(planned["rule"])
    per_job = planned["gpu_hours_per_job"] * planned["jobs"]
    assert planned["gpu_hours"].tolist() == pytest.approx(per_job.tolist(), rel=2e-3)
    assert (planned["what_would_fit"] == "").equals(planned["fits"])


def test_a_larger_base_takes_more_and_a_smaller_device_longer(planned):
    rows = planned.set_index(["rule", "device", "base", "domain", "method"])
    fast, slow = ((d, b, "telecom", "full_ft") for d, b in zip(
        ["h100-80gb", "rtx-4090"], ["qwen3-8b", "qwen3-8b"], strict=True))  # fmt: skip
    small = ("h100-80gb", "qwen3-4b", "telecom", "full_ft")

    assert rows.loc[("train", *slow), "wall_hours"] > rows.loc[("train", *fast), "wall_hours"]
    for column in ("gpu_hours", "peak_memory_gb", "disk_gb", "usd"):
        assert rows.loc[("train", *fast), column] > rows.loc[("train", *small), column]


@given(st.floats(0, 400 * GB), st.sampled_from(["qwen3-4b", "qwen3-8b"]))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_timed_together_fits_together(paper, known, room, base):
    jobs = Jobs(paper, paper.shape(base), known["h100-80gb"])
    methods = paper.scale["methods"]

    groups = jobs.timing_groups(methods, "telecom", room)

    timed = dict.fromkeys(name for group in groups for name in group)  # in order, each once
    assert list(timed) == [*methods, "stage0", "fisher"] and methods[0] == "full_ft"
    for group in groups:
        assert len(group) == 1 or jobs.timing_memory(group, "telecom") <= room
        beside = group if group[0] == "full_ft" else ["full_ft", group[0]]
        assert beside is group or jobs.timing_memory(beside, "telecom") > room
        alone = [run_memory(jobs.shape, paper.scale.method(m)) for m in group if m in methods]
        assert jobs.timing_memory(group, "telecom") >= sum(alone) / jobs.gpus


def test_of_both_bases_all_but_the_large_ones_fisher_fits_eight_gpus(planned):
    """Weights and squares of Qwen3-8B are 65 GB, and the Fisher is made on one device."""
    rows = planned[planned["device"] == "h100-80gb"]
    too_large = rows[~rows["fits"]]

    assert set(too_large["base"]) == {"qwen3-8b"}
    assert set(too_large["rule"]) == {"fisher", "timings"}
    assert set(too_large["what_would_fit"]) == {plan.WITHOUT_EWC}


def test_what_would_fit_fits(paper, known):
    jobs = Jobs(paper, paper.shape("qwen3-4b"), known["h100-80gb"])
    point = paper.scale.method("full_ft")
    room = jobs.training_memory(point, "nl2sql") - 1

    words = plan.remedies(jobs, "train", "nl2sql", "full_ft", room)

    micro_batch, gpus = (
        int(re.search(pattern, words)[1]) for pattern in (r"batch (\d+)", r"(\d+) GPUs")
    )
    assert jobs.training_memory(point, "nl2sql", micro_batch=micro_batch) <= room
    assert jobs.training_memory(point, "nl2sql", gpus=gpus) <= room
    assert plan.remedies(jobs, "train", "nl2sql", "full_ft", 0.0) == plan.ELSEWHERE


def test_a_predicted_table_has_hours_and_no_scores(planned, paper):
    table = plan.predicted_table1(paper.scale, planned)

    assert list(table.columns) == TABLE1 and set(table["status"]) == {"predicted"}
    scores = ["domain_score", "general", "forgetting", "mmlu"]
    assert table[scores].isna().all(axis=None)
    trained = table[table["method"] != "base"]
    assert (trained["device_hours"] > 0).all() and table["device_hours"].isna().any()
    ratios = trained.set_index(["base", "domain", "method"])["cost_ratio"]
    assert (ratios.xs("full_ft", level="method") == 1).all()
    # It is charged with Stage 0, as EWC with its Fisher.
    assert ratios["qwen3-4b", "telecom", "ewc"] > 1
    assert not table.duplicated(KEYS).any()


def test_the_rate_is_fitted_on_full_ft_alone(known, tmp_path):
    work = Workload(config.load(CONFIGS / "paper.yaml"))
    true = replace(known["h100-80gb"], flops={"float32": 1e13, "bfloat16": 2e14})
    jobs = Jobs(work, work.shape("qwen3-4b"), true)
    load, stage1 = work.training("telecom"), work.scale["stage1"]
    steps = math.ceil(stage1["epochs"] * load.records / stage1["batch_size"])
    rows = [
        dict(zip(KEYS, ("paper", "qwen3-4b", "telecom", method), strict=True))
        | {"seed": 1, "stage": "stage1", "device": "8 x NVIDIA H100", "peak_memory_mb": 3e4}
        | {"device_hours": jobs.gpus * steps * seconds / 3600}
        for method in ("full_ft", "replay", "lr_moclip")
        for seconds in [jobs.step_seconds(work.scale.method(method), "telecom")]
    ]
    folder = tmp_path / "paper"
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "costs.csv", index=False)
    columns = ["domain", "set_size_mean"]
    pd.DataFrame([], columns=columns).to_csv(folder / "savings.csv", index=False)

    found = plan_check.check(work, tmp_path, known).set_index(["quantity", "method"])

    step = found.loc["step_s"]
    assert step["fitted"].to_dict() == {"full_ft": True, "lr_moclip": False, "replay": False}
    assert step["error"].abs().max() < 0.002 and step["error_as_stated"].abs().max() < 1
    assert not found.loc["peak_memory_gb"]["fitted"].any()


def test_the_plan_of_micro_is_near_what_was_measured(tmp_path, capsys):
    """The command, too: of a scale without data, whose data are made for it."""
    scale = config.load(CONFIGS / "micro.yaml")

    commands.plan(scale, DEVICES, REFERENCE, tmp_path / "plan.csv", seeds=[1])

    checked = pd.read_csv(tmp_path / "plan_check.csv")
    checked = checked[(checked["scale"] == "micro") & ~checked["fitted"]]
    errors = checked.groupby("quantity")["error"].apply(lambda error: error.abs().median())
    assert errors["step_s"] < 0.1 and errors["stage0_s"] < 0.25 and errors["peak_memory_gb"] < 0.1
    worst = checked.groupby("quantity")["error"].apply(lambda error: error.abs().max())
    assert worst["step_s"] < 0.3 and worst["peak_memory_gb"] < 0.2
    # The stated rate of this CPU is the fitted one: plan.csv is as good as its check.
    assert (checked["error"] - checked["error_as_stated"]).abs().max() < 0.05
    written = pd.read_csv(tmp_path / "plan.csv")
    assert written["fits"].all() and set(written["device"]) == {"cpu-2"}
    assert "micro, step_s: error" in capsys.readouterr().out


def bench_of(scale: config.Scale, checkpoint: Path, domain: str = "telecom", length: int = 12):
    data = records(64, 20, length, 0.25)
    base = next(iter(scale["bases"]))
    return SimpleNamespace(
        scale=scale, base=base, domain=domain, records=data, general=data, checkpoint=checkpoint
    )


def free(monkeypatch, gigabytes: float, words: str = devices.CPU) -> None:
    monkeypatch.setattr(devices, "free_memory", lambda: (gigabytes * GB, words))


@pytest.mark.parametrize("method", [None, "full_ft", "ewc", "lr_moclip"])
def test_what_does_not_fit_is_refused_in_one_line(method, tmp_path, monkeypatch):
    scale = config.load(CONFIGS / "micro.yaml")
    write_config(tmp_path, {**SMOLLM2, "num_hidden_layers": 60})
    free(monkeypatch, 0.6, "NVIDIA X")

    with pytest.raises(UserError) as raised:
        plan.refuse_if_too_large(bench_of(scale, tmp_path, length=100), method)

    message = str(raised.value)
    assert "\n" not in message and "0.6 GB are free on NVIDIA X" in message
    assert "needs about" in message and "What would fit: " in message
    assert (method or "Stage 0") in message


def test_what_is_lost_between_tensors_is_counted(tmp_path, monkeypatch):
    write_config(tmp_path, {**SMOLLM2, "num_hidden_layers": 60})
    bench = bench_of(config.load(CONFIGS / "micro.yaml"), tmp_path)
    free(monkeypatch, 1.0)
    with pytest.raises(UserError) as raised:
        plan.refuse_if_too_large(bench, "full_ft")
    needed = float(re.search(r"about (\d+\.\d) GB", str(raised.value))[1])

    free(monkeypatch, needed - 0.1)  # the tensors alone have room in it
    with pytest.raises(UserError, match=f"about {needed} GB"):
        plan.refuse_if_too_large(bench, "full_ft")
    free(monkeypatch, needed + 0.1)
    plan.refuse_if_too_large(bench, "full_ft")


def test_what_runs_took_is_within_what_is_counted(known):
    checked = pd.read_csv(REFERENCE / "paper" / "plan_check.csv")
    checked = checked[checked["quantity"] == "peak_memory_gb"]
    assert set(checked["scale"]) >= {"micro", "smollm2"}

    lost = known["cpu-2"].usable / known["cpu-2"].room
    assert (checked["measured"] <= lost * checked["predicted"]).all()


def test_the_small_scales_fit_into_small_machines(tmp_path, monkeypatch):
    """micro into 4 GB, smollm2 into 10, with records as long as their longest."""
    micro = config.load(CONFIGS / "micro.yaml")
    write_config(tmp_path, {**GROUPED, "model_type": "qwen3", "vocab_size": 8192})
    free(monkeypatch, 4)
    for method in [None, *micro["methods"]]:
        plan.refuse_if_too_large(bench_of(micro, tmp_path, length=45), method)

    smollm2 = config.load(CONFIGS / "smollm2.yaml")
    write_config(tmp_path / "smol", SMOLLM2)
    free(monkeypatch, 10)
    for method in [None, *smollm2["methods"]]:
        plan.refuse_if_too_large(bench_of(smollm2, tmp_path / "smol", length=230), method)


def write_config(folder: Path, architecture: dict) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(**architecture).save_pretrained(folder)
    as_checkpoint(folder)


def test_a_base_of_which_nothing_is_known_is_named(tiny_scale):
    with pytest.raises(UserError, match=r"a\.yaml: bases\.b: no architecture.*Add the key"):
        shape_of(Path("a.yaml"), "b", {"wheel": "x"})
    with pytest.raises(UserError, match=r"bases\.b\.architecture: .*nonsense"):
        shape_of(Path("a.yaml"), "b", {"architecture": {"model_type": "nonsense"}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices/cpu-2/memory_gb": DROP}, ["devices.cpu-2", "no key 'memory_gb'"]),
        ({"devices/cpu-2/achieved/float32": 1.5}, ["achieved.float32", "1.5", "or equal to 1"]),
        ({"devices/cpu-2/sources/date": "lately"}, ["sources.date", "'lately'", "pattern"]),
    ],
)
def test_a_mistake_in_the_devices_is_named(edit, changes, words):
    with pytest.raises(UserError) as raised:
        devices.load(edit(DEVICES, changes))

    assert all(word in str(raised.value) for word in words), raised.value


def test_a_cpu_is_as_fast_as_the_threads_it_is_given(known):
    cpu, gpu = known["cpu-2"], known["h100-80gb"]

    assert cpu.rate("float32", 1) == cpu.rate("float32", 2) / 2 == cpu.rate("float32", 9) / 2
    assert gpu.rate("bfloat16", 1) == gpu.rate("bfloat16", 8) == pytest.approx(0.3 * 989e12)


def test_tiny_has_a_plan(known):
    """A scale that states nothing: its own data are not there, and it says so."""
    with pytest.raises(UserError, match=r"tiny\.yaml: plan\.pretraining: nothing is known"):
        plan.plan(Workload(config.load(TINY)), [known["cpu-2"]])
