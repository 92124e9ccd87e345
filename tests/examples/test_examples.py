"""The example scripts, run as a reader runs them: they are short, work offline, leave no file
behind and teach their model what they say."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=folder, env=os.environ | offline, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_says_what_it_is_for(path):
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) < 60
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(text))


def test_the_own_loop_learns_and_shows_what_its_loss_does_not_see(tmp_path):
    out = run("own_loop.py", tmp_path)

    losses = [float(x) for x in re.findall(r"restricted loss ([\d.]+)", out)]
    full = [float(x) for x in re.findall(r"full cross-entropy ([\d.]+)", out)]
    accuracy = [float(x) for x in re.findall(r"accuracy ([\d.]+)%", out)]
    assert len(losses) == 8
    assert losses[-1] < 0.05 * losses[0]
    assert full[1] < 0.2 * full[0]
    assert accuracy[0] < 5 < 95 < accuracy[1]
    assert len(re.findall("outside mass", out)) == 2


def test_the_trainer_learns(tmp_path):
    out = run("trainer.py", tmp_path)

    losses = [float(x) for x in re.findall(r"'loss': '([\d.]+)'", out)]
    assert len(losses) == 8
    assert losses[-1] < 0.2 * losses[0]
    assert float(re.search(r"accuracy ([\d.]+)%", out)[1]) > 90
