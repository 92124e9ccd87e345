"""Predicted bytes against parameters of real models and an allocator's peak; what must grow with
what; what is refused."""

import copy
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.config import load
from lrmoclip.config.parts import Hub, Stage1, Wheel
from lrmoclip.core.errors import UserError
from lrmoclip.data.batches import collate
from lrmoclip.methods import Method
from lrmoclip.models.shapes import shape_of
from lrmoclip.train import memory
from lrmoclip.train.fisher import fisher_diagonal
from lrmoclip.train.memory import Rows, fisher_bytes, training_bytes
from lrmoclip.train.run import TrainingSet, start
from tests.conftest import Allocations
from tests.cost.made import (
    CONFIGS,
    EWC,
    FAMILIES,
    FULL,
    GB,
    GROUPED,
    LORA,
    QWEN3_4B,
    REFERENCE,
    REPLAY,
    SMOLLM2,
    build,
    records,
    shape,
    write_config,
)


def scale_of(precision: str = "float32", checkpointing: bool = False, micro_batch=None):
    stage1 = Stage1(
        epochs=2, batch_size=6, warmup=0.3, weight_decay=0.01, betas=[0.9, 0.99], probe_records=4,
        probe_every=2, gradient_checkpointing=checkpointing, micro_batch=micro_batch,
    )  # fmt: skip
    return SimpleNamespace(precision=precision, stage1=stage1)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family):
    model, found = build(FAMILIES[family]), shape(FAMILIES[family])

    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.body == found.parameters - (1 if tied else 2) * 2048 * 96
    assert found.block == sum(p.numel() for p in model.base_model.layers[0].parameters())
    assert (found.layers, found.d, found.vocabulary, found.f) == (3, 96, 2048, 256)


def test_published_models_have_their_published_size():
    larger = {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False}

    assert shape(QWEN3_4B).parameters == pytest.approx(4.02e9, rel=1e-3)
    assert shape(QWEN3_4B | larger).parameters == pytest.approx(8.19e9, 1e-3)
    assert shape(SMOLLM2).parameters == 134_515_008


def test_a_base_of_which_nothing_is_known_is_named():
    wheel = Wheel(wheel="w", version="1", sha256="0" * 64)
    with pytest.raises(UserError, match=r"a\.yaml: bases\.b: no architecture.*Add the key"):
        shape_of(Path("a.yaml"), "b", wheel)
    unknown = Hub(hub="a/b", revision="c", architecture=SMOLLM2 | {"model_type": "nonsense"})
    with pytest.raises(UserError, match=r"bases\.b\.architecture: .*nonsense"):
        shape_of(Path("a.yaml"), "b", unknown)


def measured_peak(family: str, method: Method, scale, share: float) -> tuple[int, float]:
    """(bytes at most at a time, bytes predicted) of two real steps of six records of 48 tokens, the
    base and what EWC brings along left out of both."""
    architecture, size, length = FAMILIES[family], 6, 48
    base = build(architecture)
    data = TrainingSet(records(architecture["vocab_size"], size, length, share))
    fisher = {name: torch.ones_like(p) for name, p in base.named_parameters()}
    with Allocations() as seen:
        run = start(
            copy.deepcopy(base), method, scale.stage1, lr=1e-4, seed=1, domain=data, general=data,
            fisher=fisher, telemetry=False, precision=scale.precision,
        )  # fmt: skip
        for _ in range(2):
            run.step()
    rows = [Rows(size, length, round(share * length))]
    if method.replay:
        rows.append(Rows(size / 2, length, round(share * length)))
    found = shape(architecture)
    brought = (2 if method.penalty.state else 1) * 4 * found.parameters
    return seen.peak, training_bytes(found, method, rows, scale, 0.0) - brought


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_memory_is_the_allocators_peak(family, precision):
    measured, predicted = measured_peak(family, FULL, scale_of(precision), share=0.25)

    assert predicted == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize(
    ("method", "scale", "share", "within"),
    [
        (FULL, scale_of(), 1.0, 0.08),  # the logits outweigh everything else
        (FULL, scale_of("bfloat16", checkpointing=True), 0.25, 0.15),
        (EWC, scale_of(), 0.25, 0.08),
        (REPLAY, scale_of(), 0.25, 0.08),
        (LORA, scale_of(), 0.25, 0.25),  # frozen norms keep less than is counted
    ],
)
def test_predicted_memory_follows_method_and_setting(method, scale, share, within):
    measured, predicted = measured_peak("qwen3", method, scale, share)

    assert predicted == pytest.approx(measured, rel=within)


def test_the_fisher_holds_one_gradient_at_a_time():
    deep = {**FAMILIES["qwen3"], "num_hidden_layers": 24}
    base, found = build(deep), shape(deep)
    data, length = records(found.vocabulary, 2, 12, 0.25), 12
    batches = [collate(data, [i]) for i in range(2)]
    with Allocations() as seen:
        fisher_diagonal(base, batches, torch.Generator().manual_seed(0))

    predicted = fisher_bytes(found, FULL, Rows(1, length, 3), scale_of())
    weights = 4 * found.parameters  # there before
    assert predicted - weights == pytest.approx(seen.peak, rel=0.1)
    assert seen.peak < 2 * weights  # squares and all gradients, which was too much for Qwen3-8B


@given(
    st.sampled_from([FULL, EWC, LORA]),
    st.builds(Rows, st.integers(1, 64), st.integers(8, 4096), st.integers(1, 8)),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from([None, 1]),
    st.integers(2, 8),
)
@settings(max_examples=60, deadline=None)
def test_memory_falls_with_gpus_and_checkpointing_and_grows_with_context(
    method, rows, precision, micro_batch, k
):
    big = shape(SMOLLM2)

    def needed(rows: Rows, gpus: int = 1, checkpointing: bool = False) -> float:
        scale = scale_of(precision, checkpointing, micro_batch)
        return training_bytes(big, method, [rows], scale, 0.0, gpus)

    # From one GPU to two, whole layers come on top; from there on shards only shrink.
    assert needed(rows, gpus=2 * k) <= needed(rows, gpus=2)
    assert needed(rows, checkpointing=True) <= needed(rows)
    assert needed(Rows(rows.records, k * rows.tokens, k * rows.supervised)) >= needed(rows)
    assert needed(Rows(k * rows.records, rows.tokens, rows.supervised)) >= needed(rows)


def bench_of(scale: str, checkpoint: Path, length: int = 12) -> SimpleNamespace:
    data = records(64, 20, length, 0.25)
    found = load(CONFIGS / f"{scale}.yaml")
    return SimpleNamespace(
        scale=found, base="a-base", domain="telecom", records=data, general=data,
        checkpoint=checkpoint, point=found.method,
    )  # fmt: skip


def free(monkeypatch, gigabytes: float, kind: str = "cpu", words: str = "this machine") -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: (gigabytes * GB, kind, words))


@pytest.mark.parametrize("method", [None, "full_ft", "ewc", "lr_moclip"])
def test_what_does_not_fit_is_refused_in_one_line(method, tmp_path, monkeypatch):
    bench = bench_of("micro", write_config(tmp_path, SMOLLM2 | {"num_hidden_layers": 60}), 100)
    free(monkeypatch, 0.6, "cuda", "NVIDIA X")

    with pytest.raises(UserError) as raised:
        memory.refuse_if_too_large(bench, method)

    message = str(raised.value)
    assert "\n" not in message and "0.6 GB are free on NVIDIA X" in message
    assert "needs about" in message and "Lower stage" in message
    assert (method or "Stage 0") in message


def test_what_is_lost_between_tensors_is_counted(tmp_path, monkeypatch):
    bench = bench_of("micro", write_config(tmp_path, SMOLLM2 | {"num_hidden_layers": 60}))
    free(monkeypatch, 1.0)
    with pytest.raises(UserError) as raised:
        memory.refuse_if_too_large(bench, "full_ft")
    needed = float(re.search(r"about (\d+\.\d) GB", str(raised.value))[1])

    free(monkeypatch, needed - 0.1)  # the tensors alone have room in it
    with pytest.raises(UserError, match=f"about {needed} GB"):
        memory.refuse_if_too_large(bench, "full_ft")
    free(monkeypatch, needed + 0.1)
    memory.refuse_if_too_large(bench, "full_ft")


def test_what_runs_took_is_within_what_is_counted():
    checked = pd.read_csv(REFERENCE / "paper" / "plan_check.csv")
    checked = checked[checked["quantity"] == "peak_memory_gb"]

    assert set(checked["scale"]) >= {"micro", "smollm2"}
    assert (memory.ROOM["cpu"] * checked["measured"] <= checked["predicted"]).all()


def test_the_small_scales_fit_into_small_machines(tmp_path, monkeypatch):
    """micro into 4 GB, smollm2 into 10, with records as long as their longest."""
    small = write_config(tmp_path / "micro", GROUPED | {"model_type": "qwen3", "vocab_size": 8192})
    for scale, gigabytes, length, checkpoint in (
        ("micro", 4, 45, small),
        ("smollm2", 10, 230, write_config(tmp_path / "smollm2", SMOLLM2)),
    ):
        free(monkeypatch, gigabytes)
        bench = bench_of(scale, checkpoint, length)
        for method in [None, *bench.scale.methods]:
            memory.refuse_if_too_large(bench, method)
