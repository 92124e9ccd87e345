"""Turns that are fair, and groups that fit."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrmoclip.config import load
from lrmoclip.core import sharding
from lrmoclip.cost import stopwatch
from lrmoclip.train import memory
from tests.cost.made import CONFIGS, GB, QWEN3_4B, SMOLLM2, records, write_config


def test_every_contestant_is_called_in_every_round_and_none_always_first():
    calls = []
    contestants = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    medians = stopwatch.time_in_turns(contestants, rounds=4)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 6 and all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert [r[0] for r in rounds] == ["a", "b", "c", "a", "b", "c"]
    assert set(medians) == set("abc") and all(value >= 0 for value in medians.values())


def bench_of(scale: str, checkpoint: Path) -> SimpleNamespace:
    data = records(64, 20, 12, 0.25)
    found = load(CONFIGS / f"{scale}.yaml")
    return SimpleNamespace(
        scale=found, base="b", domain="telecom", records=data, general=data,
        checkpoint=checkpoint, point=found.method,
    )  # fmt: skip


def test_groups_are_brought_to_the_level_of_the_first(monkeypatch, tmp_path):
    """The machine is half as fast while the second group runs: nobody's ratio may show it."""
    true = {"full_ft": 2.0, "ewc": 3.0, "lora": 5.0, "store": 0.5, "fisher": 1.0}
    slowness = iter([1.0, 2.0])

    def turns(contestants, rounds):
        slow = next(slowness)
        return {name: slow * true[name] for name in contestants}

    groups = [["full_ft", "ewc"], ["full_ft", "lora", "store", "fisher"]]
    monkeypatch.setattr(stopwatch, "groups", lambda bench, methods: groups)
    monkeypatch.setattr(stopwatch, "time_in_turns", turns)
    monkeypatch.setattr(stopwatch, "_contestant", lambda bench, name: None)
    bench = bench_of("micro", write_config(tmp_path / "base", SMOLLM2))

    found = stopwatch.timings(bench, ["full_ft", "ewc", "lora"])

    assert found["step_s"] == {"full_ft": 2.0, "ewc": 3.0, "lora": 5.0}
    assert found["stage0_s"] == 0.5 * 1  # 20 records, 64 a batch
    assert found["fisher_s"] == 1.0 * 400 / stopwatch.FISHER_CHUNK


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> SimpleNamespace:
    return bench_of("paper", write_config(tmp_path_factory.mktemp("base"), QWEN3_4B))


@given(st.floats(0, 400 * GB))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_timed_together_fits_together(bench, free):
    scale, methods = bench.scale, bench.scale.methods
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "free_bytes", lambda: (free, "cuda", "NVIDIA X"))
        patched.setattr(sharding, "asked", lambda: 8)

        groups = stopwatch.groups(bench, methods)

        room = memory.ROOM["cuda"] * free
        timed = dict.fromkeys(name for group in groups for name in group)  # in order, each once
        assert list(timed) == [*methods, "store", "fisher"] and methods[0] == "full_ft"
        shape = memory.shape_of_checkpoint(bench.checkpoint)
        for group in groups:
            together = stopwatch.group_bytes(bench, group)
            assert len(group) == 1 or together <= room
            beside = group if group[0] == "full_ft" else ["full_ft", group[0]]
            assert beside is group or stopwatch.group_bytes(bench, beside) > room
            kept = [memory.kept_bytes(shape, scale.method(m)) for m in group if m in methods]
            assert together >= sum(kept) / 8
