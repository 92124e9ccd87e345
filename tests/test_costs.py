"""The cost model against its closed form, who is charged for what, and turns that are fair."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lrmoclip.config import scale as config
from lrmoclip.cost import costs
from lrmoclip.cost.costs import (
    SAVINGS,
    cost_rows,
    flops_per_token,
    forward_flops,
    head_share,
    model_shape,
    saving_row,
    time_in_turns,
)
from tests.test_training import POINT, RESTRICTED, make_model, make_records

QWEN3_4B = {"body": 3_600_000_000, "head": 390_000_000, "d": 2560}
EWC = {**POINT, "penalty": {"name": "ewc", "strength": 1.0}}
LR = {**POINT, **RESTRICTED}
RUN = {
    "scale": "micro",
    "base": "b",
    "domain": "d",
    "method": "m",
    "seed": 1,
    "steps": 100,
    "tokens": 5000,
    "train_s": 9.0,
    "probe_s": 1.0,
    "probe_tokens": 700,
    "peak_memory_mb": 300.0,
    "set_size_mean": 4.0,
}
TIMINGS = {
    "shape": {"body": 100, "head": 1000, "d": 10},
    "supervised_share": 0.5,
    "head_share": 0.1,
    "step_s": {"m": 0.036, "full_ft": 0.072},
    "stage0_s": 7.2,
    "stage0_tokens": 900,
    "fisher_s": 3.6,
    "fisher_tokens": 80,
    "fisher_share": 0.25,
    "device": "cpu: test",
}


def test_the_head_is_a_tenth_of_a_step_of_qwen3_4b():
    assert head_share(QWEN3_4B, 1.0) == pytest.approx(0.39 / 3.99)


def test_flops_follow_the_cost_model():
    full = 6 * (3.6e9 + 0.5 * 0.39e9)
    assert flops_per_token(POINT, QWEN3_4B, 0.5, 0.0) == pytest.approx(full)
    restricted = 6 * 3.6e9 + 6 * 0.5 * 2560 * 20
    assert flops_per_token(LR, QWEN3_4B, 0.5, 20) == pytest.approx(restricted)
    assert forward_flops(QWEN3_4B, 0.5) == pytest.approx(full / 3)
    lora = {**POINT, "adapter": {"name": "lora", "rank": 1, "alpha": 1}}
    assert flops_per_token(lora, QWEN3_4B, 0.5, 0.0) == pytest.approx(full * 2 / 3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_models_shape_counts_every_parameter_once(tied):
    model = make_model(vocabulary=50, hidden=16)
    if not tied:
        model.lm_head.weight = type(model.lm_head.weight)(model.lm_head.weight.clone())
    shape = model_shape(model)
    assert shape["head"] == 50 * 16 and shape["d"] == 16
    assert shape["body"] == sum(p.numel() for p in model.model.layers.parameters()) + 16


def test_stage0_is_charged_to_methods_with_sets_and_the_fisher_to_ewc():
    def stages(method):
        return {row["stage"]: row for row in cost_rows(RUN, method, TIMINGS, 2.0)}

    assert set(stages(POINT)) == {"stage1", "probe", "evaluation"}
    assert set(stages(LR)) == {"stage0", "stage1", "probe", "evaluation"}
    assert set(stages(EWC)) == {"fisher", "stage1", "probe", "evaluation"}
    rows = stages(LR)
    assert rows["stage1"]["device_hours"] == pytest.approx(100 * 0.036 / 3600)
    assert rows["stage1"]["wall_s"] == 9.0
    assert rows["stage0"]["device_hours"] == pytest.approx(7.2 / 3600)
    assert rows["stage1"]["flops_model"] == 5000 * (6 * 100 + 6 * 0.5 * 10 * 4)
    assert rows["stage0"]["flops_model"] == 900 * 2 * (100 + 500)
    assert {row["device"] for row in rows.values()} == {"cpu: test"}


def test_savings_show_prediction_measurement_and_bound():
    row = saving_row(RUN, LR, POINT, TIMINGS, seeds=2)
    assert row["step_ratio"] == pytest.approx(0.5)
    assert row["step_ratio_predicted"] == pytest.approx((600 + 120) / (6 * (100 + 500)))
    assert row["head_share"] == pytest.approx(500 / 600)
    # 100 steps of 0.036 s and a Stage 0 of 7.2 s, whole or half, against 100 steps of 0.072 s.
    assert row["cost_ratio"] == pytest.approx(10.8 / 7.2)
    assert row["cost_ratio_amortised"] == pytest.approx(7.2 / 7.2)
    assert row["device"] == "cpu: test"
    assert list(row) == SAVINGS


def test_every_contestant_is_called_in_every_round_and_none_always_first():
    calls = []
    contestants = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    medians = time_in_turns(contestants, rounds=4)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 6 and all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert [r[0] for r in rounds] == ["a", "b", "c", "a", "b", "c"]
    assert set(medians) == set("abc") and all(value >= 0 for value in medians.values())


def test_groups_are_brought_to_the_level_of_the_first(monkeypatch):
    """The machine is half as fast while the second group runs: nobody's ratio may show it."""
    true = {"full_ft": 2.0, "ewc": 3.0, "lora": 5.0, "stage0": 0.5, "fisher": 1.0}
    slowness = iter([1.0, 2.0])

    def turns(contestants, rounds):
        slow = next(slowness)
        return {name: slow * true[name] for name in contestants}

    monkeypatch.setattr(costs, "time_in_turns", turns)
    monkeypatch.setattr(costs, "_contestant", lambda bench, name: None)
    settings = {"stage0": {"batch_size": 4}, "ewc": {"fisher_records": 16}}
    bench = SimpleNamespace(
        scale=config.Scale(Path("s.yaml"), settings | {"scale": "s"}, {}), base="b", domain="d",
        model=make_model(), records=make_records(), general=make_records(),
    )  # fmt: skip
    groups = [["full_ft", "ewc"], ["full_ft", "lora", "stage0", "fisher"]]

    found = costs.timings(bench, groups, rounds=3)

    assert found["step_s"] == {"full_ft": 2.0, "ewc": 3.0, "lora": 5.0}
    assert found["stage0_s"] == 0.5 * -(-len(bench.records) // 4)
    assert found["fisher_s"] == 1.0 * 16 / costs.FISHER_CHUNK
