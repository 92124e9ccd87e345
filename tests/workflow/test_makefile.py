"""The Makefile's own words: a Python that is too old is refused in one line."""

import shutil
import subprocess
import sys

from tests.support import ROOT


def test_an_old_python_is_refused_in_one_line(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    old = tmp_path / "python3.9"
    pretend = "import sys; sys.version_info = (3, 9, 7); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}" "$2"\n')
    old.chmod(0o755)

    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Python 3.11 or newer is needed" in line and "3.9" in line and "make PYTHON=" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_an_environment_of_a_users_is_left_alone(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("mine")

    done = subprocess.run(["make", "test"], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert ".venv is there" in line and "make VENV=" in line
    assert [p.name for p in (tmp_path / ".venv").iterdir()] == ["pyvenv.cfg"]
