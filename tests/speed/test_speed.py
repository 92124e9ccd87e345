"""Speed: contestants compute the same, rows say what they mean, the whole rule, small."""

import pandas as pd
import pytest
import torch

from lrmoclip import speed
from lrmoclip.speed import loss, measure, optimizer, report, steps, store

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    """Every part at a size that takes no time."""
    for name, value in {"POSITIONS": 12, "HIDDEN": 8, "VOCABULARY": 400, "MEAN_K": 4}.items():
        monkeypatch.setattr(loss, name, value)
    monkeypatch.setattr(loss, "CENTRE", {"N": 8, "K": 4, "V": 8192, "d": 8})
    ranges = {"N": (4, 8), "K": (2, 4), "V": (8192, 16384), "d": (4, 8)}
    monkeypatch.setattr(loss, "RANGES", ranges)
    monkeypatch.setattr(loss, "CROSSING", ((8, 4, 4),))
    for name, value in {"VOCABULARY": 64, "HIDDEN": 16, "INTERMEDIATE": 32, "LAYERS": 1}.items():
        monkeypatch.setattr(optimizer, name, value)
    monkeypatch.setattr(steps, "llama_135m", steps.qwen3_micro)
    monkeypatch.setattr(store, "VOCABULARY", 300)
    micro = (steps.qwen3_micro, 2, 10, 4, 1)
    monkeypatch.setattr(steps, "SHAPES", {"micro": micro})


def test_the_contestants_that_run_here_compute_one_loss_and_its_gradients():
    problem = loss.Problem(6, 8, 40, 4, 0.0, CPU)
    want = problem.dense()
    whole = torch.arange(40).repeat(6)
    problem.sets = type(problem.sets)(
        whole, torch.arange(0, 241, 40), torch.zeros(6).bool(), whole * 0.0, *torch.zeros(2, 6)
    )
    for call in (problem.restricted(), problem.cut_cross_entropy):
        for got, dense in zip(call(), want, strict=True):
            torch.testing.assert_close(got, dense, rtol=1e-4, atol=1e-6)


def test_a_target_is_met_or_not():
    assert measure.row("f", "c", "m", 0.7, "<= 0.7")["met"] is True
    assert measure.row("f", "c", "m", 9.9, ">= 10")["met"] is False
    assert measure.row("f", "c", "m", 0.03, "< 0.03")["met"] is False
    assert measure.row("f", "c", "m", 1.0)["met"] is None
    assert measure.row("f", "c", "m", None, ">= 10")["met"] is None


def test_ratios_point_the_way_they_say():
    seconds = {"ours": 2.0, "theirs": 6.0}
    slower = measure.against("f", "c", seconds, "ours", "theirs", "<= 0.5")
    faster = measure.against("f", "c", seconds, "ours", "theirs", ">= 2", speedup=True)
    assert (slower["value"], slower["met"]) == (pytest.approx(1 / 3), True)
    assert (faster["value"], faster["met"]) == (3.0, True)


def test_extra_memory_is_the_peak_beyond_what_is_returned():
    held = torch.ones(1000)

    def call():
        kept = held * 2  # 4,000 bytes, returned
        _ = torch.cat([kept, kept, kept])  # 12,000 bytes for a while
        return [kept]

    assert measure.extra_mb(call, CPU) == pytest.approx(0.012, abs=0.0005)


def test_the_whole_rule_gives_a_table_that_can_be_shown_and_drawn(small, tmp_path):
    table = speed.measure_all()

    assert list(table.columns) == speed.COLUMNS
    assert set(table["figure"]) == {
        "store", "loss", "crossover", "scaling", "stage 0", "stage-1 step", "moclip",
    }  # fmt: skip
    assert table[["device", "versions", "commit", "threads"]].notna().all(axis=None)
    absent = table["value"].isna()
    assert table.loc[absent, "note"].str.startswith("does not run here").all()
    assert set(table.loc[absent, "baseline"]) <= {"Liger"}
    assert table.loc[~absent & table["target"].notna(), "met"].notna().all()

    table.to_csv(tmp_path / "benchmarks.csv", index=False)
    table = pd.read_csv(tmp_path / "benchmarks.csv")
    shown = report.markdown(table)
    assert shown.count("\n| ") == table["target"].notna().sum() + 2  # and the store's
    assert shown.count("| yes ") == (table["met"] == True).sum()  # noqa: E712, the column has gaps
    assert shown.count("| **no** ") == (table["met"] == False).sum()  # noqa: E712
    timed = table["figure"].eq("moclip") | table["measure"].eq("speed-up") & table["value"].notna()
    assert (table.loc[timed, "floor_seconds"] > 0).all()
    report.scaling_plot(table, tmp_path / "scaling.png", tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    slope = table[(table["case"] == "V") & (table["contestant"] == loss.DENSE)]["value"].item()
    assert f"{slope:+.2f}" in (tmp_path / "scaling.svg").read_text()
