"""Asking a finished run for more runs what is new and nothing else, wherever its results lie."""

import csv
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.workflow import RUNS, SNAKEMAKE, TINY

TABLES = {"tables", "forgetting_plot", "table1", "all"}


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The results alone in another folder, without what Snakemake knew of them."""
    shutil.copytree(finished / "results", tmp_path / "copy" / "results")
    return tmp_path / "copy"


def ask(
    folder: Path, *config: str, scale: Path = TINY, targets: tuple = (), dry: bool = False
) -> subprocess.CompletedProcess:
    words = ["--config", f"scales={scale}", *config, "--", *targets]
    flags = ["-n"] if dry else []
    return subprocess.run(
        [*SNAKEMAKE, "--cores", "2", *flags, *words], cwd=folder, capture_output=True, text=True
    )


def planned(*given, **more) -> Counter:
    """Jobs a rule of a dry run."""
    done = ask(*given, **more, dry=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    if "Job stats:" not in said:
        assert "Nothing to be done" in said
        return Counter()
    table = said.split("Job stats:")[1].split("\ntotal")[0]
    return Counter({rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.M)})


def rows(folder: Path, table: str = "table1") -> list[dict]:
    with open(folder / f"results/tiny/{table}.csv") as lines:
        return list(csv.DictReader(lines))


def test_one_more_method_runs_alone_and_the_others_keep_their_rows(copied):
    new = "methods=lr_adamw"
    jobs = planned(copied, new)
    assert {rule: n for rule, n in jobs.items() if rule not in TABLES} == {
        "train": 2, "evaluate": 2, "timings": 2,
    }  # fmt: skip
    before = {(row["domain"], row["method"]): row for row in rows(copied)}

    done = ask(copied, new)

    assert done.returncode == 0, done.stderr
    after = {(row["domain"], row["method"]): row for row in rows(copied)}
    assert set(after) - set(before) == {("telecom", "lr_adamw"), ("nl2sql", "lr_adamw")}
    assert {key: after[key] for key in before} == before
    assert all(after[key]["cost_ratio"] for key in set(after) - set(before))
    assert not planned(copied, new)


def test_one_more_seed_runs_alone(copied):
    new = "seeds=1,2,3"
    jobs = planned(copied, new)
    assert {rule: n for rule, n in jobs.items() if rule not in TABLES} == {
        "train": 8, "evaluate": 8,
    }  # fmt: skip
    marker = copied / RUNS / "telecom/full_ft/trained.1_2.json"
    before = marker.stat().st_mtime_ns

    done = ask(copied, new, targets=(f"{RUNS}/telecom/full_ft/scored.3.json",))

    assert done.returncode == 0, done.stderr
    assert marker.stat().st_mtime_ns == before
    assert (copied / RUNS / "telecom/full_ft/seed3/metrics.json").exists()
    assert planned(copied, new)["train"] == 7


def test_one_more_domain_runs_alone(copied, edit, tmp_path):
    rates = (TINY.parent / "tiny_learning_rates.csv").read_text()
    of_more = [
        row.replace(",telecom,", ",more,") for row in rates.splitlines() if ",telecom," in row
    ]
    (tmp_path / "rates.csv").write_text("\n".join([rates.strip(), *of_more]))
    document = {"task": "telecom", "kind": "choice", "metric": "acc"}
    more = edit(TINY, {"domains/more": document, "learning_rates": "rates.csv"})
    jobs = planned(copied, scale=more)
    assert (jobs["train"], jobs["stage0"], jobs["evaluate_base"]) == (4, 1, 1)
    assert jobs["base"] == jobs["data"] == 0


def test_fewer_seeds_or_methods_run_nothing_but_the_tables(copied):
    for fewer in ("seeds=2", "methods=ewc", "domains=nl2sql"):
        assert set(planned(copied, fewer)) <= TABLES


def test_results_that_were_copied_run_nothing(copied):
    assert set(planned(copied)) <= TABLES
    done = ask(copied)
    assert done.returncode == 0, done.stderr
    assert not planned(copied)


def test_a_seed_that_was_lost_runs_alone_in_its_job(copied):
    folder = copied / RUNS / "telecom/full_ft"
    kept = (folder / "seed1/model/model.safetensors").stat().st_mtime_ns
    shutil.rmtree(folder / "seed2")

    done = ask(copied)

    assert done.returncode == 0, done.stderr
    assert (folder / "seed1/model/model.safetensors").stat().st_mtime_ns == kept
    assert (folder / "seed2/metrics.json").exists()


def test_a_checkout_that_was_renamed_runs_nothing(finished, tmp_path):
    """Nor one whose environment lies elsewhere: no path of either is a reason to run."""
    renamed = shutil.copytree(finished, finished.with_name("renamed"))
    (tmp_path / "venv").symlink_to(sys.prefix)
    command = [str(tmp_path / "venv/bin/python"), *SNAKEMAKE[1:], "-n", "--cores", "2"]

    done = subprocess.run(
        [*command, "--config", f"scales={TINY}"], cwd=renamed, capture_output=True, text=True
    )

    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_missing_rate_is_said_before_anything_runs(tmp_path, edit):
    done = ask(tmp_path, "methods=lora", scale=edit(TINY, {"learning_rates": "none.csv"}))

    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "none.csv: no learning rate for base qwen3-s0" in line and "method lora" in line
    assert done.stderr.strip().splitlines()[-1] == line
    assert not (tmp_path / "results").exists()
