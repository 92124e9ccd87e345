"""The tables of a scale from the records of runs, against an example worked out by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.data import records
from lrmoclip.report import scored, tables
from lrmoclip.report.scored import METRICS, load
from lrmoclip.report.tables import REGIMES, TABLE1, gather, regimes, to_csv
from tests.support.handmade import ABOVE, GENERAL, hours, scale, write_run, write_study
from tests.support.made import as_data, reseal


def table1(paths, costs, scale=scale(), sizes=None):  # noqa: B008 (it is frozen)
    return tables.table1(load(paths, scale), costs, scale, sizes)


def metrics_table(paths):
    return scored.metrics_table(load(paths, scale()))


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    return write_study(tmp_path)


def put_samples(metrics: Path, frame: pd.DataFrame) -> None:
    samples = metrics.with_name("samples.parquet")
    frame.to_parquet(samples)
    reseal(metrics, files={samples.name: files.sha256(samples)})


@pytest.fixture
def costs() -> pd.DataFrame:
    return hours()


def test_metrics_are_tidy_and_do_not_depend_on_the_order_of_runs(paths):
    table = metrics_table(paths)
    assert list(table.columns) == METRICS
    assert len(table) == 5 * 4 * 2  # runs, measurements, splits
    pd.testing.assert_frame_equal(table, metrics_table(reversed(paths)))


def test_a_run_given_twice_is_refused(paths):
    with pytest.raises(UserError, match="measured twice: micro qwen3-s0 telecom base 0"):
        metrics_table([*paths, paths[0]])


def test_table_1_has_its_columns_and_the_base_first(paths, costs):
    table = table1(paths, costs)
    assert list(table.columns) == TABLE1
    assert list(table["method"]) == ["base", "lr_moclip", "full_ft"]
    assert list(table["seeds"]) == [1, 2, 2]


def test_table_1_of_full_fine_tuning_by_hand(paths, costs):
    row = table1(paths, costs).set_index("method").loc["full_ft"]
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
    row = table1(paths, costs).set_index("method").loc["lr_moclip"]
    assert (row["domain_score"], row["domain_score_ci"]) == (100.0, 0.0)
    assert row["domain_exact"] == 12.5
    assert row["general"] == 75.0  # mmlu 75 and 75, math 50 and 100
    assert row["forgetting"] == -12.5  # the base had 62.5
    assert row["gold_in_set"] == 91.5  # 91 and 92 %
    assert row["outside_mass"] == 0.15  # 0.1 and 0.2
    assert row["loss_spikes"] == 0.0
    assert row["device_hours"] == 2.0  # (0.5 + 2 + 0.5 + 1) / 2, the probe left out
    assert row["cost_ratio"] == 0.5


def test_the_base_forgets_nothing_and_costs_nothing_to_train(paths, costs):
    row = table1(paths, costs).set_index("method").loc["base"]
    assert (row["domain_score"], row["domain_exact"], row["general"]) == (25.0, 0.0, 62.5)
    assert (row["forgetting"], row["forgetting_ci"]) == (0.0, 0.0)
    assert np.isnan(
        row[["loss_spikes", "gold_in_set", "device_hours", "cost_ratio"]].astype(float)
    ).all()


def test_a_split_that_was_not_evaluated_is_refused(paths, costs):
    with pytest.raises(UserError, match="nothing of the split 'train'"):
        load(paths, scale(), split="train")


def test_without_full_fine_tuning_the_cost_ratio_is_empty(paths, costs):
    table = table1([p for p in paths if "full_ft" not in str(p)], costs)
    assert table["cost_ratio"].isna().all()
    assert list(table["device_hours"].dropna()) == [2.0]


def test_without_costs_the_rest_stands(paths, costs):
    table = table1(paths, costs.iloc[:0])
    assert table["device_hours"].isna().all() and table["domain_score"].notna().all()


def test_without_general_benchmarks_forgetting_is_empty(paths, costs):
    table = table1(paths, costs, scale({}))
    assert table[["general", "forgetting", "forgetting_ci"]].isna().all(axis=None)


def test_other_roles_count_in_general(tmp_path, costs):
    coding = scale({"coding": GENERAL["mmlu"]})
    paths = write_study(tmp_path, screening={"coding": ABOVE})
    row = table1(paths, costs, coding).set_index("method").loc["full_ft"]
    assert row["general"] == 37.5 and np.isnan(row["mmlu"])


@pytest.mark.parametrize("seed", [1, 2])
def test_items_that_do_not_pair_are_refused(paths, costs, seed):
    frame = pd.read_parquet(paths[seed].with_name("samples.parquet"))
    frame.loc[frame["item"] == "micro_mmlu-0", "item"] = "another"
    put_samples(paths[seed], frame)
    with pytest.raises(UserError, match=r"2 items of .* do not pair"):
        table1(paths, costs)


def test_items_of_the_same_text_pair_in_their_order(paths, costs):
    for path in paths:
        frame = pd.read_parquet(path.with_name("samples.parquet"))
        frame = frame.sort_values("item", kind="stable")
        frame.loc[frame["item"] == "micro_mmlu-1", "item"] = "micro_mmlu-0"
        put_samples(path, frame)
    row = table1(paths, costs).set_index("method").loc["full_ft"]
    assert row["forgetting"] == 31.25


def test_samples_of_another_evaluation_are_refused(paths, costs):
    samples = paths[1].with_name("samples.parquet")
    frame = pd.read_parquet(samples)
    frame.assign(value=1.0).to_parquet(samples)
    with pytest.raises(UserError, match=r"samples\.parquet: damaged"):
        table1(paths, costs)


def test_scores_of_other_weights_than_the_runs_are_refused(paths, costs):
    reseal(paths[1].with_name("run.json"), weights="of another training")
    with pytest.raises(UserError, match=r"metrics\.json: of other weights"):
        table1(paths, costs)


@pytest.mark.parametrize("name", ["samples.parquet", "run.json", "metrics.json"])
def test_a_missing_file_is_named(paths, costs, name):
    paths[1].with_name(name).unlink()
    with pytest.raises(UserError, match=name):
        table1(paths, costs)


def test_a_missing_base_is_named(paths, costs):
    with pytest.raises(UserError, match="base model in micro/qwen3-s0/telecom"):
        table1(paths[1:], costs)


def test_a_missing_measurement_is_named(tmp_path, costs):
    paths = write_study(tmp_path, screening={"bbh": ABOVE})
    bbh = scale({"bbh": GENERAL["mmlu"] | {"task": "micro_bbh"}})
    with pytest.raises(UserError, match="no acc of micro_bbh"):
        table1(paths, costs, bbh)


def test_the_file_has_fixed_decimals_and_the_same_bytes(paths, costs, tmp_path):
    table = table1(paths, costs)
    text = to_csv(table)
    assert text == to_csv(table1(list(reversed(paths)), costs))
    row = text.splitlines()[2]
    assert row.startswith("micro,qwen3-s0,telecom,lr_moclip,2,100.00,0.00,12.50,75.00,,,")
    assert row.endswith(",0.00,91.50,0.1500,2.000000,0.500,,4,49.00,measured,")
    (tmp_path / "table1.csv").write_text(text)
    again = pd.read_csv(tmp_path / "table1.csv")
    assert to_csv(again) == text


def test_gathered_scales_keep_their_order_and_may_not_overlap(paths, costs):
    micro = table1(paths, costs)
    small = micro.assign(scale="small")
    assert list(gather([small, micro])["scale"]) == ["small"] * 3 + ["micro"] * 3
    with pytest.raises(UserError, match="two rows for micro/qwen3-s0/telecom/base"):
        gather([micro, micro])


def screened(above: bool) -> dict:
    """What the base's metrics.json says, with the value that BASE has."""
    math = {"value": 0.5, "n": 2, "chance": 0.0, "p": 0.0, "above": True}
    mmlu = {"value": 0.75, "n": 4, "chance": 0.7, "p": 0.65, "above": above}
    return {"mmlu": mmlu, "math": math}


def test_a_benchmark_at_chance_enters_neither_general_nor_forgetting(tmp_path, costs):
    table = table1(write_study(tmp_path, screening=screened(above=False)), costs)
    table = table.set_index("method")
    assert set(table["general_tasks"]) == {"micro_math"}
    assert table.loc["full_ft", "general"] == table.loc["full_ft", "math"] == 25.0
    assert table.loc["full_ft", "forgetting"] == 25.0  # 50, less (0 + 50) / 2
    assert table.loc["base", "mmlu"] == 75.0  # its own score, and no other's
    assert table["mmlu"].drop("base").isna().all()


def test_the_screening_of_the_base_is_believed(tmp_path, costs):
    counted = table1(write_study(tmp_path, screening=screened(above=True)), costs)
    assert set(counted["general_tasks"]) == {"micro_mmlu micro_math"}  # though p is 0.65


def test_methods_need_not_be_scored_on_what_does_not_count(tmp_path, costs):
    paths = write_study(tmp_path, screening=screened(above=False))
    for path in paths[1:]:
        rows = files.read_json(path)["rows"]
        reseal(path, rows=[row for row in rows if row["benchmark"] != "micro_mmlu"])
    assert (table1(paths, costs)["general_tasks"] == "micro_math").all()


def test_a_role_without_data_is_empty_everywhere(tmp_path, costs):
    paths = write_study(tmp_path, screening=screened(True) | {"gpqa": {"missing": "gated"}})
    gpqa = {"task": "gpqa", "kind": "choice", "metric": "acc", "chance": 0.25}
    table = table1(paths, costs, scale({**GENERAL, "gpqa": gpqa}))
    assert table["gpqa"].isna().all()
    assert set(table["general_tasks"]) == {"micro_mmlu micro_math"}


def test_a_base_at_chance_everywhere_has_nothing_to_forget(tmp_path, costs):
    screening = screened(False) | {"math": screened(False)["mmlu"] | {"value": 0.5, "n": 2}}
    table = table1(write_study(tmp_path, screening=screening), costs)
    assert table[["general", "general_ci", "forgetting", "forgetting_ci"]].isna().all(axis=None)
    assert (table["general_tasks"] == "").all()


def test_the_domain_score_leaves_out_items_with_an_empty_gold_result(tmp_path, costs):
    path = write_run(tmp_path, "base", 0, (([1, 0], [1, 0], [1], [1])), empty=[1, 1, 1])
    [row] = table1([path], costs).to_dict("records")
    assert (row["domain_score"], row["test_items"]) == (50.0, 2)


def test_sizes_are_those_of_the_data_folder(paths, costs, tmp_path):
    train = [{"id": str(i), "prompt": "p", "answer": "0"} for i in range(5)]
    choices = [
        record | {"choices": [str(i) for i in range(n)], "gold": 0}
        for record, n in zip(train, [2, 4, 4, 5], strict=False)
    ]
    for split, lines in {"train": train, "test": choices}.items():
        files.write_jsonl(tmp_path / "data" / "telecom" / f"{split}.jsonl", lines)

    sizes = records.sizes(as_data(tmp_path / "data"), ["telecom"])
    table = table1(paths, costs, sizes=sizes).set_index("method")

    assert table.loc["full_ft", "train_records"] == 5
    assert np.isnan(table.loc["base", "train_records"])  # it was not trained
    assert (table["test_items"] == 4).all() and (table["resolution"] == 49.0).all()
    assert (table["domain_chance"] == 30.0).all()  # (1/2 + 1/4 + 1/4 + 1/5) / 4
    assert (table["status"] == "measured").all()


def test_a_set_without_training_data_or_choices_has_neither_size_nor_chance(tmp_path):
    record = {"id": "1", "prompt": "p", "answer": "a"}
    files.write_jsonl(tmp_path / "sqleval" / "test.jsonl", [record])

    found = records.sizes(as_data(tmp_path), ["sqleval"])

    assert found == {"sqleval": {"train_records": None, "chance": None}}


def test_regimes_have_a_row_for_each_method_with_sets(paths):
    table = regimes(load(paths, scale()))
    assert list(table.columns) == REGIMES
    [row] = table.to_dict("records")
    assert row == {
        "scale": "micro", "base": "qwen3-s0", "domain": "telecom", "method": "lr_moclip",
        "seeds": 2, "gold_in_set": 91.5, "gold_in_set_eos": 100.0, "set_size_mean": 6.5,
        "outside_mass_start": 0.01, "outside_mass": 0.15,
    }  # fmt: skip


def test_predicted_rows_can_be_gathered_but_keep_their_status(paths, costs):
    micro = table1(paths, costs)
    paper = micro.assign(scale="paper", status="predicted", domain_score=np.nan)
    gathered = gather([micro, paper])
    assert list(gathered["status"]) == ["measured"] * 3 + ["predicted"] * 3
