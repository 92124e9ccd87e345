"""Table 1 from the records of runs, against an example worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lrmoclip.errors import UserError
from lrmoclip.tables import (
    METRICS,
    STAND_INS,
    TABLE1,
    gather,
    markdown,
    metrics_table,
    savings,
    show,
    table1,
    to_csv,
    warnings,
)

ROLES = {
    "general": {
        "mmlu": {"task": "micro_mmlu", "metric": "acc", "chance": 0.25},
        "math": {"task": "micro_math", "metric": "exact_match", "chance": 0.0},
    },
    "domains": {"telecom": {"task": "telecom", "metric": "acc", "exact": "exact_match"}},
}
# Outcomes by item. (telecom acc, telecom exact_match, micro_mmlu acc, micro_math exact_match)
BASE = ([0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 0])
FULL = {
    1: ([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0]),
    2: ([1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0]),
}
REPLAYED = {
    1: ([1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0], [1, 0]),
    2: ([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1]),
}
MEASURED = [
    ("telecom", "acc"),
    ("telecom", "exact_match"),
    ("micro_mmlu", "acc"),
    ("micro_math", "exact_match"),
]


def write_run(root: Path, method: str, seed: int, outcomes, *, record=None, scale="micro") -> Path:
    """A run's folder as training and evaluation leave it; the path of its metrics.json."""
    head = {"scale": scale, "base": "qwen3-s0", "domain": "telecom", "method": method}
    folder = root / scale / method / f"seed{seed}"
    folder.mkdir(parents=True)
    samples, rows = [], []
    for (benchmark, metric), values in zip(MEASURED, outcomes, strict=True):
        key = {"benchmark": benchmark, "split": "test", "metric": metric}
        rows.append(key | {"value": float(np.mean(values)), "n": len(values)})
        samples += [
            key | {"item": f"{benchmark}-{i}", "value": float(v)} for i, v in enumerate(values)
        ]
        rows.append(key | {"split": "validation", "value": 0.123, "n": 1})
    # Items pair by their hash, whatever the order they lie in.
    pd.DataFrame(samples[:: 1 if seed % 2 else -1]).to_parquet(folder / "samples.parquet")
    document = head | {"seed": seed, "rows": rows, "provenance": {}}
    (folder / "metrics.json").write_text(json.dumps(document))
    if record is not None:
        (folder / "run.json").write_text(json.dumps(record))
    return folder / "metrics.json"


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    nothing = {"gold_in_set": None, "outside_mass": None}
    paths = [write_run(tmp_path, "base", 0, BASE)]
    paths += [
        write_run(tmp_path, "full_ft", seed, FULL[seed], record={"loss_spikes": seed} | nothing)
        for seed in FULL
    ]
    paths += [
        write_run(
            tmp_path,
            "lr_moclip",
            seed,
            REPLAYED[seed],
            record={"loss_spikes": 0, "gold_in_set": 0.9 + seed / 100, "outside_mass": 0.01},
        )
        for seed in REPLAYED
    ]
    return paths


@pytest.fixture
def costs() -> pd.DataFrame:
    hours = [
        ("full_ft", 1, "stage1", 3.0),
        ("full_ft", 1, "evaluation", 9.0),
        ("full_ft", 2, "stage1", 5.0),
        ("lr_moclip", 1, "stage0", 0.5),
        ("lr_moclip", 1, "stage1", 2.0),
        ("lr_moclip", 1, "probe", 9.0),
        ("lr_moclip", 2, "stage0", 0.5),
        ("lr_moclip", 2, "stage1", 1.0),
    ]
    frame = pd.DataFrame(hours, columns=["method", "seed", "stage", "device_hours"])
    return frame.assign(scale="micro", base="qwen3-s0", domain="telecom")


METHODS = ["lr_moclip", "full_ft"]


def test_metrics_are_tidy_and_do_not_depend_on_the_order_of_runs(paths):
    table = metrics_table(paths)
    assert list(table.columns) == METRICS
    assert len(table) == 5 * 4 * 2  # runs, measurements, splits
    pd.testing.assert_frame_equal(table, metrics_table(reversed(paths)))


def test_a_run_given_twice_is_refused(paths):
    with pytest.raises(UserError, match="measured twice: micro qwen3-s0 telecom base 0"):
        metrics_table([*paths, paths[0]])


def test_table_1_has_its_columns_and_the_base_first(paths, costs):
    table = table1(paths, costs, ROLES, METHODS)
    assert list(table.columns) == TABLE1
    assert list(table["method"]) == ["base", "lr_moclip", "full_ft"]
    assert list(table["seeds"]) == [1, 2, 2]


def test_table_1_of_full_fine_tuning_by_hand(paths, costs):
    row = table1(paths, costs, ROLES, METHODS).set_index("method").loc["full_ft"]
    assert row["domain_score"] == 75.0  # 3/4 and 3/4
    # MS_seed = 0, MS_item = 1/6 < MS_residual = 1/3 (see test_stats): Var = (1/3) / 8, 3 df
    assert row["domain_score_ci"] == round(100 * np.sqrt(1 / 24) * scipy.stats.t.ppf(0.975, 3), 2)
    assert row["domain_exact"] == 50.0  # 2/4 and 2/4
    assert row["mmlu"] == 37.5  # 2/4 and 1/4
    assert row["math"] == 25.0  # 0/2 and 1/2
    assert np.isnan(row["bbh"]) and np.isnan(row["gpqa"])
    assert row["general"] == 31.25  # (37.5 + 25) / 2
    assert row["general_tasks"] == "micro_mmlu micro_math"
    assert row["forgetting"] == 31.25  # base (75 + 50) / 2 = 62.5, less 31.25
    # Lost by item: mmlu 0 1 0 0 | 1/4    math 1 0 | 1/2
    #                    0 1 1 0 | 2/4         0 0 | 0
    # Macro means of the seeds: 3/8 and 1/4; variance 1/128, seeds' term 1/256.
    # mmlu: item means 0, 1, 0.5, 0, mean 0.375: MS_item = 2 * 0.6875 / 3 = 11/24; residuals
    #   +-(0.125, 0.125, -0.375, 0.125): MS_residual = 2 * 0.1875 / 3 = 1/8; over 4 * 2 * 4 = 32.
    # math: item means 0.5, 0: MS_item = 2 * 0.125 / 1 = 1/4; residuals +-0.25: MS_residual = 1/4;
    #   over 4 * 2 * 2 = 16.
    # The seeds' term, 1/256, is below 1/256 + 1/64, so seeds count as alike; math's items, too:
    # Var = 11/768 (3 df) + 1/64 (1 df)
    item, noise = 11 / 768, 1 / 64
    df = (item + noise) ** 2 / (item**2 / 3 + noise**2)
    expected = 100 * np.sqrt(item + noise) * scipy.stats.t.ppf(0.975, df)
    assert row["forgetting_ci"] == round(expected, 2)
    assert row["loss_spikes"] == 1.5
    assert np.isnan(row["gold_in_set"]) and np.isnan(row["outside_mass"])
    assert row["device_hours"] == 4.0  # (3 + 5) / 2, evaluation left out
    assert row["cost_ratio"] == 1.0


def test_table_1_of_logits_replay_by_hand(paths, costs):
    row = table1(paths, costs, ROLES, METHODS).set_index("method").loc["lr_moclip"]
    assert (row["domain_score"], row["domain_score_ci"]) == (100.0, 0.0)
    assert row["domain_exact"] == 12.5
    assert row["general"] == 75.0  # mmlu 75 and 75, math 50 and 100
    assert row["forgetting"] == -12.5  # the base had 62.5
    assert row["gold_in_set"] == 91.5  # 91 and 92 %
    assert row["outside_mass"] == 0.01
    assert row["loss_spikes"] == 0.0
    assert row["device_hours"] == 2.0  # (0.5 + 2 + 0.5 + 1) / 2, the probe left out
    assert row["cost_ratio"] == 0.5


def test_the_base_forgets_nothing_and_costs_nothing_to_train(paths, costs):
    row = table1(paths, costs, ROLES, METHODS).set_index("method").loc["base"]
    assert (row["domain_score"], row["domain_exact"], row["general"]) == (25.0, 0.0, 62.5)
    assert (row["forgetting"], row["forgetting_ci"]) == (0.0, 0.0)
    assert np.isnan(
        row[["loss_spikes", "gold_in_set", "device_hours", "cost_ratio"]].astype(float)
    ).all()


def test_a_split_that_was_not_evaluated_is_refused(paths, costs):
    with pytest.raises(UserError, match="nothing of the split 'train'"):
        table1(paths, costs, ROLES, METHODS, split="train")


def test_without_full_fine_tuning_the_cost_ratio_is_empty(paths, costs):
    table = table1([p for p in paths if "full_ft" not in str(p)], costs, ROLES, METHODS)
    assert table["cost_ratio"].isna().all()
    assert list(table["device_hours"].dropna()) == [2.0]


def test_without_costs_the_rest_stands(paths, costs):
    table = table1(paths, costs.iloc[:0], ROLES, METHODS)
    assert table["device_hours"].isna().all() and table["domain_score"].notna().all()


def test_without_general_benchmarks_forgetting_is_empty(paths, costs):
    table = table1(paths, costs, ROLES | {"general": {}}, METHODS)
    assert table[["general", "forgetting", "forgetting_ci"]].isna().all(axis=None)


def test_other_roles_count_in_general(paths, costs):
    roles = ROLES | {"general": {"coding": ROLES["general"]["mmlu"]}}
    row = table1(paths, costs, roles, METHODS).set_index("method").loc["full_ft"]
    assert row["general"] == 37.5 and np.isnan(row["mmlu"])


@pytest.mark.parametrize("seed", [1, 2])
def test_items_that_do_not_pair_are_refused(paths, costs, seed):
    samples = paths[seed].with_name("samples.parquet")
    frame = pd.read_parquet(samples)
    frame.loc[frame["item"] == "micro_mmlu-0", "item"] = "another"
    frame.to_parquet(samples)
    with pytest.raises(UserError, match=r"2 items of .* do not pair"):
        table1(paths, costs, ROLES, METHODS)


def test_items_of_the_same_text_pair_in_their_order(paths, costs):
    for path in paths:
        samples = path.with_name("samples.parquet")
        frame = pd.read_parquet(samples).sort_values("item", kind="stable")
        frame.loc[frame["item"] == "micro_mmlu-1", "item"] = "micro_mmlu-0"
        frame.to_parquet(samples)
    row = table1(paths, costs, ROLES, METHODS).set_index("method").loc["full_ft"]
    assert row["forgetting"] == 31.25


def test_samples_of_another_evaluation_are_refused(paths, costs):
    samples = paths[1].with_name("samples.parquet")
    frame = pd.read_parquet(samples)
    frame.assign(value=1.0).to_parquet(samples)
    with pytest.raises(UserError, match=r"samples\.parquet disagree on"):
        table1(paths, costs, ROLES, METHODS)


@pytest.mark.parametrize("name", ["samples.parquet", "run.json", "metrics.json"])
def test_a_missing_file_is_named(paths, costs, name):
    paths[1].with_name(name).unlink()
    with pytest.raises(UserError, match=name):
        table1(paths, costs, ROLES, METHODS)


def test_a_missing_base_is_named(paths, costs):
    with pytest.raises(UserError, match="base model in micro/qwen3-s0/telecom"):
        table1(paths[1:], costs, ROLES, METHODS)


def test_a_missing_measurement_is_named(paths, costs):
    roles = {**ROLES, "general": {"bbh": {"task": "micro_bbh", "metric": "acc"}}}
    with pytest.raises(UserError, match="no acc of micro_bbh"):
        table1(paths, costs, roles, METHODS)


def test_the_file_has_fixed_decimals_and_the_same_bytes(paths, costs, tmp_path):
    table = table1(paths, costs, ROLES, METHODS)
    text = to_csv(table)
    assert text == to_csv(table1(list(reversed(paths)), costs, ROLES, METHODS))
    row = text.splitlines()[2]
    assert row.startswith("micro,qwen3-s0,telecom,lr_moclip,2,100.00,0.00,12.50,75.00,,,")
    assert row.endswith(",0.00,91.50,0.0100,2.000000,0.500")
    (tmp_path / "table1.csv").write_text(text)
    again = pd.read_csv(tmp_path / "table1.csv")
    assert to_csv(again) == text


def test_gathered_scales_keep_their_order_and_may_not_overlap(paths, costs):
    micro = table1(paths, costs, ROLES, METHODS)
    small = micro.assign(scale="small")
    assert list(gather([small, micro])["scale"]) == ["small"] * 3 + ["micro"] * 3
    with pytest.raises(UserError, match="two rows for micro/qwen3-s0/telecom/base"):
        gather([micro, micro])
    with pytest.raises(UserError, match="Not a table 1"):
        gather([micro.drop(columns="general")])


@pytest.mark.parametrize("render", [show, markdown])
def test_what_is_shown_says_when_benchmarks_are_stand_ins(paths, costs, render):
    table = table1(paths, costs, ROLES, METHODS)
    text = render(table)
    assert "100.0 ±0.0" in text and "lr_moclip" in text and "0.50" in text and "–" in text
    assert STAND_INS in text
    assert STAND_INS not in render(table.assign(scale="small"))
    assert "qwen3-s0" in text and "nan" not in text


def test_savings_show_the_heads_share_and_the_device_beside_every_ratio():
    table = pd.DataFrame(
        {
            "domain": ["telecom"],
            "method": ["lr_moclip"],
            "device": ["cpu: test"],
            "head_share": [0.153],
            "set_size_mean": [6.13],
            "step_ratio_predicted": [0.847],
            "step_ratio": [0.9],
            "cost_ratio": [1.25],
            "cost_ratio_amortised": [0.97],
        }
    )

    shown = savings(table)

    row = shown.splitlines()[2].split()
    assert row == ["telecom", "lr_moclip", "15.3", "6.1", "0.85", "0.90", "1.25", "0.97"]
    assert "on cpu: test" in shown


def test_warnings_are_a_line_a_method_with_how_many_runs():
    rows = [("m", 1, "cold"), ("m", 1, "leaks"), ("m", 2, "cold"), ("n", 1, "x")]
    table = pd.DataFrame(rows, columns=["method", "seed", "warning"]).assign(domain="d")

    assert warnings(table).splitlines() == [
        "warning: d, m, 2 runs, such as: cold",
        "warning: d, n, 1 runs, such as: x",
    ]
    assert warnings(table.iloc[:0]) == ""
