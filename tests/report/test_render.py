"""What a reader sees of a scale's tables."""

import pandas as pd
import pytest

from lrmoclip.report import render, tables
from lrmoclip.report.counted import general
from lrmoclip.report.render import CONSOLE, MARKDOWN, STAND_INS
from lrmoclip.report.scored import load, metrics_table
from tests.support.handmade import (
    ABOVE,
    AT_CHANCE,
    BASE,
    GENERAL,
    PERPLEXITY,
    hours,
    scale,
    write_run,
    write_study,
)

WITH_PERPLEXITY = scale({**GENERAL, "wikitext": PERPLEXITY})


def made(paths, scale=scale(), sizes=None):  # noqa: B008 (it is frozen)
    """Table 1, general.csv and metrics.csv of the runs."""
    runs = load(paths, scale)
    return tables.table1(runs, hours(), scale, sizes), general(runs, scale), metrics_table(runs)


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    return made(write_study(tmp_path))[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its ruler."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("style", [CONSOLE, MARKDOWN])
def test_table_1_says_when_benchmarks_are_stand_ins(table, style):
    text = render.table1(table, style)
    assert "100.0 ±0.0" in text and "lr_moclip" in text and "0.50" in text and "–" in text
    assert STAND_INS in text
    real = table.assign(general_tasks="mmlu arc_easy")
    assert STAND_INS not in render.table1(real, style)
    assert "qwen3-s0" in text and "nan" not in text


def test_predicted_rows_are_marked_in_the_place_of_the_interval(table):
    table.loc[table["method"] == "lr_moclip", "status"] = "predicted"
    text = render.table1(table, MARKDOWN)
    [predicted] = [row for row in rows(text) if "lr_moclip" in row[1]]
    assert predicted[1:3] == ["lr_moclip (predicted)", "–"]  # no seed was run
    assert predicted[3] == "100.0 predicted" and "±" not in "".join(predicted)
    assert "nobody has run it" in text
    measured = [row for row in rows(text) if "full_ft" in row[1]]
    assert "predicted" not in "".join(measured[0])


def test_predicted_rows_are_not_among_the_measured_scores(tmp_path):
    table, screened, metrics = made(write_study(tmp_path))
    table.loc[table["method"] == "lr_moclip", "status"] = "predicted"
    assert "lr_moclip" not in render.scores(screened, metrics, table)


def test_sizes_and_resolution_stand_under_the_table(tmp_path):
    sizes = {"telecom": {"train_records": 800, "chance": 0.25}}
    text = render.sizes(made(write_study(tmp_path), sizes=sizes)[0])
    assert text.startswith(
        "telecom: 800 training records, 4 test items, a resolution of 49.0 points, chance 25.0 %."
    )


def test_the_bases_scores_say_what_does_not_count(tmp_path):
    paths = write_study(tmp_path, screening={"mmlu": AT_CHANCE, "math": ABOVE})
    [head, mmlu, _] = rows(render.screened(made(paths)[1], MARKDOWN))
    assert head[1:4] == ["benchmark", "metric", "items"]
    assert mmlu[1:3] == ["mmlu", "acc"] and mmlu[4] == "25.0" and mmlu[6] == "0.0508"
    assert mmlu[-1] == "at chance, not in forgetting"


def test_each_method_has_its_score_and_its_perplexity_over_the_bases(tmp_path):
    paths = write_study(tmp_path, perplexities=(20.0, 50.0, 22.0))
    table, screened, metrics = made(paths, WITH_PERPLEXITY)
    text = render.scores(screened, metrics, table, MARKDOWN)
    assert rows(text) == [
        ["domain", "method", "mmlu", "math", "wikitext"],
        ["telecom", "base", "75.0", "50.0", "20.0"],
        ["telecom", "lr_moclip", "75.0", "75.0", "×1.10"],
        ["telecom", "full_ft", "37.5", "25.0", "×2.50"],
    ]
    assert "over the base's" in text
    assert table.set_index("method").loc["full_ft", "general"] == 31.25  # as without it


def test_benchmarks_at_chance_have_no_column_of_scores(tmp_path):
    paths = write_study(tmp_path, screening={"mmlu": AT_CHANCE, "math": ABOVE})
    table, screened, metrics = made(paths)
    text = render.scores(screened, metrics, table, MARKDOWN)
    assert rows(text)[0] == ["domain", "method", "math"]
    assert "perplexity" not in text


def test_items_with_an_empty_gold_result_are_reported_apart(tmp_path):
    table, _, metrics = made([write_run(tmp_path, "base", 0, BASE, empty=[1, 0, 0, 0])])
    text = render.empty_results(metrics, table)
    assert text == (
        "telecom (qwen3-s0): 4 items whose gold result is empty are not in the domain score. "
        "On them, in percent: base 25.0.\n"
    )
    table, _, metrics = made([write_run(tmp_path / "other", "base", 0, BASE)])
    assert render.empty_results(metrics, table) == ""


def test_regimes_of_scales_stand_side_by_side():
    columns = [*tables.REGIMES[:4], "gold_in_set", "outside_mass_start", "outside_mass"]
    found = [
        ("micro", "qwen3-s0", "telecom", "lr_moclip", 99.9, 0.01, 0.4),
        ("micro", "qwen3-s0", "telecom", "lr_union_moclip", 99.9, 0.01, 0.02),
        ("smollm2", "smollm2-135m", "telecom", "lr_moclip", 45.0, 0.3, 0.35),
    ]
    table = pd.DataFrame(found, columns=columns).reindex(columns=tables.REGIMES)
    assert rows(render.regimes(table, MARKDOWN)) == [
        ["scale", "base", "domain", "gold in set %", "at ends %", "mean set size",
         "outside mass before", "after lr_moclip", "after lr_union_moclip"],
        ["micro", "qwen3-s0", "telecom", "99.9", "–", "–", "0.010", "0.400", "0.020"],
        ["smollm2", "smollm2-135m", "telecom", "45.0", "–", "–", "0.300", "0.350", "–"],
    ]  # fmt: skip


def test_savings_show_the_heads_share_and_the_device_beside_every_ratio():
    table = pd.DataFrame(
        {
            "base": ["qwen3-s0"],
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

    shown = render.savings(table)

    row = shown.splitlines()[2].split()
    assert row == ["telecom", "lr_moclip", "15.3", "6.1", "0.85", "0.90", "1.25", "0.97"]
    assert "on cpu: test" in shown
    assert render.savings(table.iloc[:0]) == ""


def test_warnings_are_a_line_a_method_with_how_many_runs():
    found = [("m", 1, "cold"), ("m", 1, "leaks"), ("m", 2, "cold"), ("n", 1, "x")]
    table = pd.DataFrame(found, columns=["method", "seed", "warning"]).assign(domain="d")

    assert render.warnings(table).splitlines() == [
        "warning: d, m, 2 runs, such as: cold",
        "warning: d, n, 1 runs, such as: x",
    ]
    of_none = pd.DataFrame([("full_ft", None, "it was not run here")], columns=table.columns[:3])
    assert (
        render.warnings(of_none.assign(domain="d")) == "warning: d, full_ft: it was not run here\n"
    )
    assert render.warnings(table.iloc[:0]) == ""


def test_a_report_is_made_from_the_files_of_one_folder(tmp_path):
    table, screened, metrics = made(write_study(tmp_path / "runs"))
    columns = ["base", "domain", "method", "device", "head_share", "set_size_mean"]
    columns += ["step_ratio_predicted", "step_ratio", "cost_ratio", "cost_ratio_amortised"]
    written = {
        "table1": table, "general": screened, "metrics": metrics,
        "savings": pd.DataFrame(columns=columns),
    }  # fmt: skip
    for name, frame in written.items():
        (tmp_path / f"{name}.csv").write_text(tables.to_csv(frame))
    text = render.report(tmp_path, MARKDOWN)
    assert "nan" not in text
    for part in ("**qwen3-s0** (micro)", "a resolution of", "Wilson", "Scores by benchmark"):
        assert part in text
    assert text.count("| telecom") == 2 * len(table)
