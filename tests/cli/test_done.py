"""Runs that are there already stay, where nothing that they follow from has changed."""

import shutil
from pathlib import Path

import pytest

from lrmoclip.core import files, provenance
from tests.conftest import TINY
from tests.support.made import reseal, run


@pytest.fixture
def there(given, trained, tmp_path) -> Path:
    """A copy of a finished run, seed 1 of lr_moclip."""
    return Path(shutil.copytree(trained, tmp_path / "seed1"))


@pytest.fixture
def again(given, store, there):
    """Train it again; (exit status, whether its weights were written anew)."""
    weights = there / "model" / "model.safetensors"

    def train(**changed) -> tuple[int, bool]:
        before = weights.stat().st_mtime_ns if weights.exists() else None
        options = {**given, "method": "lr_moclip", "seed": 1, "store": store, "out": there}
        status = run("train", **{**options, **changed})
        return status, weights.stat().st_mtime_ns != before

    return train


def test_a_finished_run_stays_and_this_is_said(again, there, capsys):
    assert again(done=there.with_name("trained.1.json")) == (0, False)
    assert "there already" in capsys.readouterr().out
    assert files.read_sealed(there.with_name("trained.1.json"), "trained")["seeds"] == [1]


def test_a_run_of_another_commit_of_the_same_code_stays(again, monkeypatch):
    monkeypatch.setattr(provenance, "_commit", lambda: "another")
    assert again() == (0, False)


def test_a_run_of_other_code_is_made_anew(again, monkeypatch):
    monkeypatch.setattr(provenance, "_code", lambda: "another")
    assert again() == (0, True)


def test_a_run_at_another_rate_is_made_anew(again, edit, tmp_path):
    rates = (TINY.parent / "tiny_learning_rates.csv").read_text()
    (tmp_path / "rates.csv").write_text(rates.replace("0.001", "0.002"))
    assert again(config=edit(TINY, {"learning_rates": "rates.csv"})) == (0, True)


def test_a_damaged_run_is_made_anew(again, there):
    (there / "training.csv").write_text("step\n")
    status, anew = again()
    assert (status, anew) == (0, True)
    assert len((there / "training.csv").read_text().splitlines()) > 2


def test_the_code_is_what_lies_in_the_files(monkeypatch, tmp_path):
    package = Path(shutil.copytree(Path(provenance.__file__).parents[1], tmp_path / "lrmoclip"))
    monkeypatch.setattr(provenance, "__file__", str(package / "core" / "provenance.py"))
    hashed = provenance._code.__wrapped__
    before = hashed()
    assert hashed() == before == provenance._code()
    with open(package / "core" / "losses.py", "a") as file:
        file.write("# a word\n")
    assert hashed() != before


@pytest.fixture
def scored(given, there):
    """Score it; the exit status."""

    def score(**changed) -> int:
        options = {key: given[key] for key in ("config", "base", "domain", "data")}
        options |= {"method": "lr_moclip", "models": there / "model", "seed": 1, "out": there}
        return run("evaluate", **{**options, **changed})

    assert score() == 0
    return score


def test_scores_of_the_same_weights_stay(scored, there, capsys):
    metrics, done = there / "metrics.json", there.with_name("scored.1.json")
    before = metrics.stat().st_mtime_ns
    capsys.readouterr()

    assert scored(done=done) == 0

    assert metrics.stat().st_mtime_ns == before
    assert "scored already" in capsys.readouterr().out
    assert files.read_sealed(done, "scored")["seeds"] == [1]


@pytest.mark.parametrize("change", ["config", "samples"])
def test_scores_with_other_settings_or_damaged_are_made_anew(scored, there, edit, change):
    metrics = there / "metrics.json"
    before = metrics.stat().st_mtime_ns
    changed = {}
    if change == "config":
        changed["config"] = edit(TINY, {"evaluation/max_new_tokens": 4})
    else:
        (there / "samples.parquet").write_bytes(b"PAR1")

    assert scored(**changed) == 0

    assert metrics.stat().st_mtime_ns != before


def test_scores_of_other_weights_are_made_anew(scored, there):
    metrics = there / "metrics.json"
    reseal(metrics, weights="of another training")
    assert scored() == 0
    assert files.read_sealed(metrics, "evaluation")["weights"] != "of another training"
