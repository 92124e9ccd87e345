"""The results that we keep: their tables agree with each other and say where they come from."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from lrmoclip import config
from lrmoclip.report.scored import KEYS
from tests.support import ROOT

KEPT = ROOT / "results" / "reference"
SCALES = sorted(path.parent.name for path in KEPT.glob("*/table1.csv"))
POINTS = 0.011  # two decimals, and the same of what they are compared with


def load(name: str) -> config.Scale:
    return config.load(ROOT / "workflow" / "config" / f"{name}.yaml")


@pytest.fixture(params=SCALES)
def kept(request) -> Path:
    """The folder of each scale that is kept."""
    return KEPT / request.param


def test_every_choice_of_micro_is_one_of_its_trials():
    scale = load("micro")
    swept = pd.read_csv(KEPT / "micro" / "tuning.csv")
    tried = {key: set(group["lr"]) for key, group in swept.groupby(["base", "domain", "method"])}
    for base, domain in itertools.product(scale.bases_to_run, scale.domains_to_run):
        for method in scale.methods:
            assert scale.chosen(base, domain, method).lr in tried[base, domain, method]


def test_the_kept_results_say_where_they_come_from(kept):
    made = (kept / "provenance.json").read_text()
    for word in ("commit", "hardware", "versions", "config", "seeds"):
        assert f'"{word}"' in made
    assert (kept / "forgetting.png").exists() and (kept / "forgetting.svg").exists()


def test_every_kept_row_was_measured_and_says_on_how_much(kept):
    table = pd.read_csv(kept / "table1.csv")
    trained = table[table["method"] != "base"]
    assert (table["status"] == "measured").all()
    assert (table["test_items"] > 0).all() and (trained["train_records"] > 0).all()
    assert ((98 / table["test_items"] ** 0.5 - table["resolution"]).abs() < POINTS).all()
    seeds = pd.read_csv(kept / "metrics.csv").groupby(KEYS)["seed"].nunique()
    assert dict(table.set_index(KEYS)["seeds"]) == dict(seeds)


def test_the_kept_scores_are_those_of_the_kept_metrics(kept):
    metrics = pd.read_csv(kept / "metrics.csv").query("split == 'test'")
    means = 100 * metrics.groupby([*KEYS, "benchmark", "metric"])["value"].mean()
    counted = pd.read_csv(kept / "general.csv").query("note.isna()").set_index("base")
    domains = load(kept.name).domains
    for row in pd.read_csv(kept / "table1.csv").itertuples():
        own = means[row.scale, row.base, row.domain, row.method]
        domain = domains[row.domain]
        assert own[domain.task, domain.metric] == pytest.approx(row.domain_score, abs=POINTS)
        roles = counted.loc[[row.base]]
        general = [own[pair] for pair in zip(roles["tasks"], roles["metric"], strict=True)]
        assert row.general == pytest.approx(sum(general) / len(general), abs=POINTS)
        assert row.general_tasks == " ".join(roles["tasks"])


def test_kept_forgetting_is_what_the_base_has_more(kept):
    table = pd.read_csv(kept / "table1.csv").set_index(["base", "domain", "method"])
    for (base, domain, _), row in table.iterrows():
        before = table.loc[(base, domain, "base"), "general"]
        assert row["forgetting"] == pytest.approx(before - row["general"], abs=2 * POINTS)


def test_the_kept_benchmarks_say_of_each_target_whether_it_is_met():
    kept = pd.read_csv(KEPT / "benchmarks.csv")
    measured = kept["value"].notna() & kept["target"].notna()
    assert kept.loc[measured, "met"].notna().all() and measured.sum() > 15
    assert kept[["device", "versions", "commit"]].notna().all(axis=None)
    assert kept.loc[~measured & kept["target"].notna(), "note"].str.contains("does not run").all()
