"""A domain as data: examples/own_domain, as its first lines say, with a base that is trained for a
moment alone."""

import csv
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT
from tests.support.workflow import jobs, snakemake

SMALLER = {
    "bases": {"steps": 4, "hidden": 32, "intermediate": 48, "layers": 1},
    "stage1": {"epochs": 0.3},
    "tuning": {"learning_rates": [0.001, 0.01]},
}


@pytest.fixture
def config(tmp_path) -> Path:
    folder = Path(shutil.copytree(ROOT / "examples" / "own_domain", tmp_path / "own_domain"))
    path = folder / "hotels.yaml"
    document = yaml.safe_load(path.read_text())
    document["methods_file"] = str(ROOT / "workflow" / "config" / "methods.yaml")
    document["data"]["sizes"] |= {"pretraining": 400, "replay": 60, "test": 10}
    document["bases"]["qwen3-s0"] |= SMALLER["bases"]
    for part in ("stage1", "tuning"):
        document[part] |= SMALLER[part]
    path.write_text(yaml.safe_dump(document))
    return path


def test_it_is_tuned_kept_and_run(config, tmp_path):
    missing = snakemake(tmp_path, "results/hotels/table1.csv", scale=config)
    assert missing.returncode != 0
    assert "learning_rates.csv: no learning rate" in missing.stderr.strip().splitlines()[-1]

    tuned = snakemake(tmp_path, "tuning", "keep", scale=config)
    assert tuned.returncode == 0, tuned.stderr
    assert "hotels: " in tuned.stdout and "training records" in tuned.stdout
    assert "2 of 2 rates replaced in" in tuned.stdout

    done = snakemake(tmp_path, "results/hotels/table1.csv", scale=config)
    assert done.returncode == 0, done.stderr
    assert not jobs(done) & {"data", "base", "own_data", "stage0"}  # they are there
    with open(tmp_path / "results/hotels/table1.csv") as lines:
        rows = {row["method"]: row for row in csv.DictReader(lines)}
    assert set(rows) == {"base", "full_ft", "lr_moclip"}
    for row in rows.values():
        assert row["test_items"] == "80" and row["domain_chance"] == "25.00"
    assert int(rows["full_ft"]["train_records"]) + 24 == 160
