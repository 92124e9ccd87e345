"""The real Snakefile at a tiny scale: from nothing to the tables, then a no-op, then after a loss;
and what a user's mistakes look like."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
TABLES = ["metrics", "table1", "general", "regimes", "costs", "savings", "warnings"]
RUNS = "results/tiny/qwen3-s0"


def snakemake(folder: Path, *targets: str, flags: tuple = ()) -> subprocess.CompletedProcess:
    command = [*SNAKEMAKE, "--cores", "2", *flags, "--config", f"scales={TINY}", "--", *targets]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)


def jobs(done: subprocess.CompletedProcess) -> set[str]:
    return set(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", done.stderr))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the whole workflow ran, once killed on its way."""
    folder = tmp_path_factory.mktemp("workflow")
    reproduce = [sys.executable, "-m", "lrmoclip.reproduce", "--snakefile", str(ROOT / "Snakefile")]
    reproduce += ["--config", f"scales={TINY}"]
    first = subprocess.Popen(
        reproduce, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (folder / RUNS / "base").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    # The process and everything it started, at once: the lock stays behind.
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list((folder / ".snakemake" / "locks").glob("*"))
    again = subprocess.run(reproduce, cwd=folder, capture_output=True, text=True, timeout=500)
    assert again.returncode == 0, again.stderr
    assert "forgetting" in again.stdout and "results/tiny" in again.stdout
    return folder


def test_every_file_of_the_contract_is_there(finished):
    for name in TABLES:
        assert (finished / f"results/tiny/{name}.csv").stat().st_size > 0
    assert (finished / "results/tiny/provenance.json").exists()
    for kind in ("png", "svg"):
        assert (finished / f"results/tiny/figures/forgetting.{kind}").stat().st_size > 0
    run = finished / RUNS / "nl2sql/lr_moclip/seed2"
    names = {"model", "training.csv", "run.json", "metrics.json", "samples.parquet"}
    assert {path.name for path in run.iterdir()} == names
    assert (finished / RUNS / "telecom/stage0/manifest.json").exists()
    rows = (finished / "results/table1.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5  # two domains, four methods and the base
    leftovers = [p for p in finished.rglob("*.tmp") if p.name.startswith(".")]
    # The killed run may have left a temporary of its own; nothing else may.
    assert all("results/tiny" in str(p) for p in leftovers)


def test_a_second_run_does_nothing(finished):
    done = snakemake(finished)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stderr and not jobs(done)


def test_a_lost_file_is_made_again_with_what_hangs_on_it(finished):
    metrics = finished / "results/tiny/metrics.csv"
    before = metrics.read_bytes()
    lost = finished / RUNS / "telecom/full_ft/seed1/metrics.json"
    lost.unlink()
    done = snakemake(finished)
    assert done.returncode == 0, done.stderr
    assert jobs(done) == {"evaluate_tiny_1", "tables", "table1", "forgetting_plot", "all"}
    assert metrics.read_bytes() == before


def test_a_cold_run_of_one_method_gives_the_same_bytes(finished, tmp_path):
    shutil.copytree(finished / "results/tiny/data", tmp_path / "results/tiny/data")
    target = f"{RUNS}/nl2sql/lr_moclip/seed1/run.json"
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
    rows = (finished / target).read_text().splitlines()
    assert len(rows) == 1 + 2  # the two rates of the grid


def test_the_plan_is_shown_without_further_flags(tmp_path):
    done = subprocess.run([*SNAKEMAKE, "-n"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train_micro_1" in done.stdout + done.stderr


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
    command = [sys.executable, "-m", "lrmoclip.reproduce", "--snakefile", str(ROOT / "Snakefile")]
    process = subprocess.Popen(
        [*command, "--config", f"scales={TINY}"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A shell's background job, as CI may be, passes on that it ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while not list((tmp_path / ".snakemake" / "locks").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    while process.poll() is None and time.monotonic() < deadline:
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them, till they hear
        time.sleep(5)
    said, _ = process.communicate(timeout=10)
    assert process.returncode != 0
    assert "lrmoclip/reproduce.py" not in said, said


def test_a_snakemake_at_work_is_not_disturbed(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "snakemake"]
    at_work = subprocess.Popen(sleep, cwd=tmp_path)  # by its words a Snakemake in this folder
    done = subprocess.run(
        [sys.executable, "-m", "lrmoclip.reproduce"], cwd=tmp_path, capture_output=True, text=True
    )
    at_work.kill()
    assert done.returncode == 2
    assert f"Snakemake is at work here, process {at_work.pid}" in done.stderr


def test_results_that_cannot_be_written_are_one_line(tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    done = subprocess.run(
        [sys.executable, "-m", "lrmoclip.reproduce"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and "results/.writable: cannot be written" in line


def test_a_failing_rule_shows_its_one_line(finished, tmp_path):
    shutil.copytree(finished / "results", tmp_path / "results")
    manifest = tmp_path / RUNS / "telecom/stage0/shard-00000.safetensors"
    manifest.write_bytes(manifest.read_bytes()[:-1])
    target = f"{RUNS}/telecom/lr_moclip/seed1/run.json"
    done = snakemake(tmp_path, target, flags=("--forcerun", "train_tiny_1", "--show-failed-logs"))
    assert done.returncode != 0
    assert "error: " in done.stdout + done.stderr and "checksum" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
