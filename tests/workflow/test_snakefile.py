"""The real Snakefile at a tiny scale: from nothing to the tables, then a no-op, then after a loss;
and what a user's mistakes look like."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from lrmoclip.cli.reproduce import MARK
from tests.support import ROOT
from tests.support.workflow import (
    QUIET,
    REPRODUCE,
    RUNS,
    SNAKEMAKE,
    TABLES,
    TINY,
    jobs,
    snakemake,
    wait_for,
)


def test_every_file_of_the_contract_is_there(finished):
    for name in TABLES:
        assert (finished / f"results/tiny/{name}.csv").stat().st_size > 0
    assert (finished / "results/tiny/provenance.json").exists()
    for kind in ("png", "svg"):
        assert (finished / f"results/tiny/figures/forgetting.{kind}").stat().st_size > 0
    run = finished / RUNS / "nl2sql/lr_moclip/seed2"
    names = {"manifest.json", "model", "training.csv", "run.json"}
    names |= {"metrics.json", "samples.parquet"}
    assert {path.name for path in run.iterdir()} == names
    assert (finished / RUNS / "telecom/stage0/manifest.json").exists()
    rows = (finished / "results/table1.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5  # two domains, four methods and the base
    assert not list((finished / "results").rglob(".*.partial"))  # of the killed one, either


def test_a_second_run_does_nothing(finished):
    done = snakemake(finished)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stderr and not jobs(done)


def test_a_lost_file_is_made_again_with_what_hangs_on_it(finished):
    metrics = finished / "results/tiny/metrics.csv"
    before = metrics.read_bytes()
    (finished / RUNS / "telecom/full_ft/seed1/metrics.json").unlink()
    done = snakemake(finished)
    assert done.returncode == 0, done.stderr
    assert jobs(done) == {"evaluate", "tables", "table1", "forgetting_plot", "all"}
    assert metrics.read_bytes() == before


def test_a_cold_run_of_one_method_gives_the_same_bytes(finished, tmp_path):
    shutil.copytree(finished / "results/tiny/data", tmp_path / "results/tiny/data")
    target = f"{RUNS}/nl2sql/lr_moclip/trained.1.json"
    done = snakemake(tmp_path, target)
    assert done.returncode == 0, done.stderr
    name = "nl2sql/lr_moclip/seed1/model/model.safetensors"
    assert (tmp_path / RUNS / name).read_bytes() == (finished / RUNS / name).read_bytes()


def test_tuning_is_a_target_of_its_own(finished):
    target = "results/tiny/qwen3-s0/telecom/lr_moclip/tuning.csv"
    assert not (finished / target).exists()
    done = snakemake(finished, target)
    assert done.returncode == 0, done.stderr
    assert jobs(done) == {"tune"}
    rates = pd.read_csv(finished / target)["lr"].to_list()
    # Of two rates each is an edge: what follows them is one step beyond.
    assert rates[:2] == [1e-3, 1e-2] and set(rates[2:]) <= {1e-4, 0.1}


def test_the_plan_is_shown_without_further_flags(tmp_path):
    done = subprocess.run([*SNAKEMAKE, "-n"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout + done.stderr


def test_lint_has_nothing_to_say():
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("scales=nano", "unknown scale 'nano'"),
        ("methods=full_ft,sgd", "unknown method 'sgd'"),
        ("seeds=1,x", "--config seeds"),
        ("steps=3", "unknown key steps"),
    ],
)
def test_a_wrong_config_is_one_line(tmp_path, config, words):
    done = subprocess.run(
        [*SNAKEMAKE, "--cores", "1", "--config", config],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    [line] = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "results").exists()


def test_ctrl_c_stops_without_a_traceback_of_ours(tmp_path):
    process = subprocess.Popen(
        [*REPRODUCE, "--config", f"scales={TINY}"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A shell's background job, as CI may be, passes on that it ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: list((tmp_path / ".snakemake" / "locks").glob("*")), process)
    while process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them, till they hear
        time.sleep(1)
    said, _ = process.communicate()
    assert process.returncode != 0
    assert "lrmoclip/reproduce.py" not in said, said


@pytest.fixture
def slow(edit) -> Path:
    """A scale whose base is not done before a test is."""
    return edit(TINY, {"bases/qwen3-s0/steps": 10**6})


def test_jobs_that_a_killed_snakemake_left_are_ended(tmp_path, slow):
    command = [*SNAKEMAKE, "--cores", "2", "--config", f"scales={slow}", "--", f"{RUNS}/base"]
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **QUIET)
    log = tmp_path / RUNS.replace("tiny", "tiny/logs") / "base.log"
    wait_for(lambda: log.exists() and "pretraining" in log.read_text(), first)
    first.kill()  # it alone: what it started lives on
    first.wait()
    left = [p for p in psutil.process_iter(["environ"]) if _is_of(p, tmp_path)]
    assert any("base" in process.cmdline() for process in left)

    again = subprocess.run(
        [*REPRODUCE, "--config", f"scales={slow}", "--", "results/tiny/data"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip

    assert f"Ending {len(left)} processes of jobs that a killed Snakemake left" in again.stderr
    assert not any(process.is_running() for process in left)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    return (process.info["environ"] or {}).get(MARK) == str(folder)


def test_a_snakemake_at_work_is_not_disturbed(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "snakemake"]
    at_work = subprocess.Popen(sleep, cwd=tmp_path)  # by its words a Snakemake in this folder
    done = subprocess.run(
        [sys.executable, "-m", "lrmoclip.cli.reproduce"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    at_work.kill()
    assert done.returncode == 2
    assert f"Snakemake is at work here, process {at_work.pid}" in done.stderr


def test_results_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    done = subprocess.run(
        [sys.executable, "-m", "lrmoclip.cli.reproduce"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and "results/table1.csv: cannot be written" in line


def _damaged(finished: Path, tmp_path: Path) -> str:
    """A copy of the results with a run lost and a broken store; what makes a rule read it."""
    shutil.copytree(finished / "results", tmp_path / "results")
    shard = tmp_path / RUNS / "telecom/stage0/shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    shutil.rmtree(tmp_path / RUNS / "telecom/lr_moclip/seed1")
    return f"{RUNS}/telecom/lr_moclip/trained.1_2.json"


@pytest.mark.parametrize("flags", [(), ("--quiet", "rules"), ("--show-failed-logs",)])
def test_a_failing_rule_shows_its_one_line_last_and_its_log(finished, tmp_path, flags):
    target = _damaged(finished, tmp_path)
    done = snakemake(tmp_path, target, flags=("--forcerun", "train", *flags))

    assert done.returncode != 0
    log, last = done.stderr.strip().splitlines()[-2:]
    assert last.startswith("error: ") and "shard-00000.safetensors: damaged" in last
    assert log == f"log: {RUNS.replace('tiny', 'tiny/logs')}/telecom/lr_moclip/train.1_2.log"
    assert last in (tmp_path / log.removeprefix("log: ")).read_text()
    assert "Traceback" not in done.stdout + done.stderr


def test_reproduce_shows_the_one_line_last(finished, tmp_path):
    target = _damaged(finished, tmp_path)
    options = ["--forcerun", "train", "--config", f"scales={TINY}", "--", target]

    done = subprocess.run([*REPRODUCE, *options], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("folder", ["x; touch f; #", "$(touch f)", "`touch f`", "x' 'y", '"x" y'])
def test_what_a_user_names_is_data_and_no_command(tmp_path, folder):
    command = [*SNAKEMAKE, "--cores", "1", "--config", "scales=smollm2", f"data_dir={folder}"]

    done = subprocess.run(
        [*command, "--", "results/smollm2/data"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode != 0
    assert "no such folder" in done.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.rglob("f"))


def test_a_checkout_whose_path_has_a_space_runs(tmp_path):
    checkout = tmp_path / "my check'out"
    for name in ("Snakefile", "workflow", "envs", "lrmoclip", "tests/workflow"):
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (checkout / ".venv").symlink_to(sys.prefix)

    done = subprocess.run(
        [checkout / ".venv" / "bin" / "python", "-m", "snakemake", "--cores", "1", "--config",
         "scales=tests/workflow/tiny.yaml", "--", f"{RUNS}/base"],
        cwd=checkout, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert (checkout / RUNS / "base" / "manifest.json").exists()
