"""The scale `paper`, as far as it goes without GPUs and a hub: its config and dry run."""

import itertools
import re
import subprocess
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from lrmoclip import config
from lrmoclip.data.published.pins import GENERAL
from lrmoclip.models import hub
from tests.support import ROOT
from tests.support.workflow import SNAKEMAKE

FOLDER = ROOT / "workflow" / "config"


@pytest.fixture(scope="module")
def paper() -> config.Scale:
    return config.load(FOLDER / "paper.yaml")


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Counter:
    """Jobs a rule of the dry run."""
    done = subprocess.run(
        [*SNAKEMAKE, "-n", "--config", "scales=paper", "data_dir=there"],
        cwd=tmp_path_factory.mktemp("paper"), capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).split("Job stats:")[1].split("total")[0]
    return Counter({rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", table, re.M)})


def test_the_whole_workflow_dry_runs(paper, planned):
    places, seeds = len(paper.bases) * len(paper.domains_to_run), len(paper.seeds)
    assert planned["base"] == len(paper.bases)
    assert planned["evaluate_base"] == places
    assert planned["stage0"] == places
    runs = places * len(paper.methods) * seeds
    assert planned["train"] == planned["evaluate"] == runs


# Parameters as the models' cards state them, in 1e9, without and with the embeddings.
@pytest.mark.parametrize(
    ("base", "body", "whole"), [("qwen3-4b", 3.6, 4.0), ("qwen3-8b", 6.95, 8.2)]
)
def test_the_architectures_have_the_published_sizes(paper, base, body, whole):
    spec = Qwen3Config(**paper.base(base).architecture.model_dump(exclude_none=True))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(spec)
    count = sum(p.numel() for p in model.parameters()) / 1e9
    head = spec.vocab_size * spec.hidden_size * (1 if spec.tie_word_embeddings else 2) / 1e9
    assert count == pytest.approx(whole, abs=0.05)
    assert count - head == pytest.approx(body, abs=0.05)


def test_everything_is_pinned_to_a_commit(paper):
    pinned = hub.wanted(paper)
    assert {kind for kind, _ in pinned.values()} == {"model", "dataset"}
    for repo, (_, revision) in pinned.items():
        assert re.fullmatch("[0-9a-f]{40}", revision), repo


def test_repositories_are_those_of_lm_evals_tasks(paper):
    found = {role: entry.hub for role, entry in paper.data.repositories.items()}
    assert found.pop("telecom") == "netop/TeleQnA"
    assert set(found) == set(paper.general)
    assert set(found.values()) <= {pin["repo"] for pin in GENERAL.values()}


def test_every_run_has_a_learning_rate_that_says_it_is_untuned(paper):
    grid = paper.tuning.learning_rates
    for base, domain in itertools.product(paper.bases, paper.domains):
        for method in paper.methods:
            rate = paper.chosen(base, domain, method).lr
            assert rate in grid or method == "lora"
    rows = paper.rates_path.read_text().splitlines()[1:]
    assert rows and all(row.endswith(",untuned starting value") for row in rows)
