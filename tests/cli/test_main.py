"""Commands register themselves; a run over several GPUs starts as many processes."""

import os
import pkgutil
import sys

import pytest

from lrmoclip.cli import commands, main, options
from tests.conftest import TINY

NAMES = [each.name.replace("_", "-") for each in pkgutil.iter_modules(commands.__path__)]


def test_every_module_is_a_command_with_a_line_of_help(capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])

    listed = capsys.readouterr().out
    assert len(NAMES) > 15
    for name in NAMES:
        [line] = [line for line in listed.splitlines() if line.split()[:1] == [name]] or [""]
        assert line or f"    {name}\n" in listed, name


@pytest.mark.parametrize("name", NAMES)
def test_a_command_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([name, "--help"])

    assert ended.value.code == 0
    assert f"usage: lrmoclip {name}" in capsys.readouterr().out


@pytest.fixture
def started(monkeypatch) -> list:
    """What a process becomes, if it becomes another."""
    found: list = []
    monkeypatch.setattr(os, "execv", lambda program, words: found.append(words))
    monkeypatch.setattr(sys, "argv", ["lrmoclip", "train", "--method", "full_ft"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return found


def test_a_scale_that_shares_a_run_becomes_torchrun(edit, started):
    options.share(options.load(edit(TINY, {"gpus": 4})))

    [words] = started
    assert words[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert words[words.index("--nproc-per-node") + 1] == "4"
    assert words[-4:] == ["lrmoclip", "train", "--method", "full_ft"]


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_gpu_or_none_needs_no_other_process(edit, started, gpus):
    options.share(options.load(edit(TINY, {"gpus": gpus})))
    assert started == []


def test_what_torchrun_started_starts_no_other(edit, started, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    options.share(options.load(edit(TINY, {"gpus": 4})))
    assert started == []
