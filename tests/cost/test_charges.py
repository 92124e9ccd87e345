"""Who is charged for what."""

from dataclasses import asdict, replace

import pytest

from lrmoclip.cost.charges import SAVINGS, cost_rows, saving_row, together
from tests.cost.made import EWC, FULL, RESTRICTED, SMOLLM2, shape

RUN = {
    "scale": "micro", "base": "b", "domain": "d", "method": "m", "seed": 1, "steps": 100,
    "tokens": 5000, "train_s": 9.0, "probe_s": 1.0, "probe_tokens": 700, "peak_memory_mb": 300.0,
    "set_size_mean": 4.0,
}  # fmt: skip
TIMINGS = {
    "shape": asdict(replace(shape(SMOLLM2), body=100, head=1000, d=10)),
    "supervised_share": 0.5,
    "step_s": {"m": 0.036, "full_ft": 0.072},
    "stage0_s": 7.2,
    "stage0_tokens": 900,
    "fisher_s": 3.6,
    "fisher_tokens": 80,
    "fisher_share": 0.25,
    "device": "cpu: test",
}


def test_stage0_is_charged_to_methods_with_sets_and_the_fisher_to_ewc():
    def stages(method):
        return {row["stage"]: row for row in cost_rows(RUN, method, TIMINGS, 2.0)}

    assert set(stages(FULL)) == {"stage1", "probe", "evaluation"}
    assert set(stages(RESTRICTED)) == {"stage0", "stage1", "probe", "evaluation"}
    assert set(stages(EWC)) == {"fisher", "stage1", "probe", "evaluation"}
    rows = stages(RESTRICTED)
    assert rows["stage1"]["device_hours"] == pytest.approx(100 * 0.036 / 3600)
    assert rows["stage1"]["wall_s"] == 9.0
    assert rows["stage0"]["device_hours"] == pytest.approx(7.2 / 3600)
    assert rows["stage1"]["flops_model"] == 5000 * (6 * 100 + 6 * 0.5 * 10 * 4)
    assert rows["stage0"]["flops_model"] == 900 * 2 * (100 + 500)
    assert stages(EWC)["fisher"]["flops_model"] == 80 * 6 * (100 + 250)
    assert {row["device"] for row in rows.values()} == {"cpu: test"}


def test_savings_show_prediction_measurement_and_bound():
    row = saving_row(RUN, RESTRICTED, FULL, TIMINGS, seeds=2)
    assert row["step_ratio"] == pytest.approx(0.5)
    assert row["step_ratio_predicted"] == pytest.approx((600 + 120) / (6 * (100 + 500)))
    assert row["head_share"] == pytest.approx(500 / 600)
    # 100 steps of 0.036 s and a Stage 0 of 7.2 s, whole or half, against 100 steps of 0.072 s.
    assert row["cost_ratio"] == pytest.approx(10.8 / 7.2)
    assert row["cost_ratio_amortised"] == pytest.approx(7.2 / 7.2)
    assert row["device"] == "cpu: test"
    assert list(row) == SAVINGS


def test_later_timings_are_brought_to_the_level_of_the_first_by_full_fts_step():
    """The second time the machine was half as fast: what was timed then counts half."""
    first = TIMINGS | {"step_s": {"full_ft": 0.1, "lora": 0.08}, "fisher_s": None}
    later = TIMINGS | {"step_s": {"full_ft": 0.2, "ewc": 0.3}, "stage0_s": 9.0, "fisher_s": 6.0}

    found = together([first, later])

    assert found["step_s"] == pytest.approx({"full_ft": 0.1, "lora": 0.08, "ewc": 0.15})
    assert (found["stage0_s"], found["fisher_s"]) == (7.2, 3.0)  # the first where it has it
    assert together([first]) == first


def test_later_timings_without_full_ft_are_taken_as_they_are():
    first = TIMINGS | {"step_s": {"lora": 0.08}}
    found = together([first, TIMINGS | {"step_s": {"ewc": 0.3}}])
    assert found["step_s"] == {"lora": 0.08, "ewc": 0.3}
