"""What the Slurm profile would submit, in the plugin's own words; no Slurm is asked."""

import json
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import yaml

from lrmoclip.config import load
from tests.support import ROOT
from tests.support.workflow import TINY

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
PAPER = ROOT / "workflow" / "config" / "paper.yaml"
LOCAL = {"all", "table1", "forgetting_plot"}
ON_GPUS = {"base", "fisher", "stage0", "train", "evaluate", "evaluate_base", "timings", "tune"}


def options_of(words: str) -> Namespace:
    """The options of an sbatch command that say what a job gets; refuses one it does not know."""
    sbatch = ArgumentParser(exit_on_error=False)
    for name in ("--job-name", "--output", "--export", "--comment"):
        sbatch.add_argument(name)
    sbatch.add_argument("--parsable", action="store_true")
    sbatch.add_argument("-t", dest="minutes", type=int)
    for name in ("--mem", "--nodes", "--ntasks", "--cpus-per-task", "--gpus"):
        sbatch.add_argument(name, type=int)
    return sbatch.parse_args(shlex.split(words)[1:])


def submitted(folder: Path, scale: str, *targets: str) -> list[dict]:
    script = [sys.executable, ROOT / "tests" / "workflow" / "submitted.py"]
    asked = ["--snakefile", ROOT / "Snakefile", "--profile", PROFILE]
    chosen = ["--config", f"scales={scale}", f"data_dir={folder}", "--", *targets]
    done = subprocess.run([*script, *asked, *chosen], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"rule')]
    return [line | {"asked": options_of(line.pop("sbatch"))} for line in lines]


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> list[dict]:
    """Jobs of the scale `paper`, tables and tuning, at each attempt."""
    folder = tmp_path_factory.mktemp("paper")
    return submitted(folder, str(PAPER), "all", "tuning")


def of(jobs: list[dict], attempt: int = 1, **wildcards) -> list[tuple[str, Namespace]]:
    return [
        (job["rule"], job["asked"])
        for job in jobs
        if job["attempt"] == attempt and job["wildcards"].items() >= wildcards.items()
    ]


def test_every_job_that_computes_says_its_memory_time_and_threads_on_one_node(paper):
    threads = load(PAPER).threads.train
    for rule, asked in of(paper):
        if rule not in LOCAL | {"tuning", "learning_rates"}:
            assert asked.mem and asked.minutes and asked.nodes == 1, rule
            assert asked.cpus_per_task >= (threads if rule in ON_GPUS else 1), rule


def test_what_takes_a_moment_stays_where_snakemake_runs(paper):
    local = {job["rule"] for job in paper if job["local"]}
    assert local == LOCAL | {"tuning", "learning_rates"}


def test_gpus_are_those_that_the_scale_shares_a_run_over(paper):
    scale = load(PAPER)
    for rule, asked in of(paper):
        several = rule in {"train", "tune", "timings"}
        wanted = (scale.gpus if several else 1) if rule in ON_GPUS else None
        assert asked.gpus == wanted, rule
        # One process is started; torchrun starts the others. Without GPUs Slurm wants it said.
        assert asked.ntasks == (None if wanted else 1), rule


def test_each_attempt_asks_for_more_memory_and_time(paper):
    first, second, third = (dict(of(paper, n, base="qwen3-4b", domain="nl2sql")) for n in (1, 2, 3))
    for rule in ("train", "evaluate", "stage0", "timings"):
        for n, later in ((2, second), (3, third)):
            assert later[rule].mem == n * first[rule].mem
            assert later[rule].minutes == n * first[rule].minutes


def test_a_larger_base_asks_for_more_as_the_kept_plan_says(paper):
    small, large = (dict(of(paper, base=base, domain="telecom")) for base in load(PAPER).bases)
    for rule in ("train", "evaluate", "stage0"):
        assert large[rule].mem > small[rule].mem and large[rule].minutes >= small[rule].minutes


def test_a_scale_without_gpus_asks_for_none(tmp_path):
    jobs = of(submitted(tmp_path, str(TINY)))
    assert {rule for rule, _ in jobs} >= {"train", "evaluate"}
    assert not any(asked.gpus for _, asked in jobs)


def test_the_profile_overrides_no_rule():
    """Threads and the kind of GPU are said by rules and users."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    assert profile["executor"] == "slurm" and profile["retries"] == 2
    assert profile["default-resources"] == {"nodes": 1}
    assert not {"set-resources", "set-threads"} & set(profile)
