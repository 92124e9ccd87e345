"""README and docs: commands run, links lead somewhere, what is generated is up to date."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT
from tests.support.made import run

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (dry run|not run): ([^>]+) -->\n)?```sh\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Command(NamedTuple):
    document: str
    words: list[str]
    dry: bool


def commands() -> list[Command]:
    """Each command of a block that is to be run; a line that ends in a backslash goes on."""
    found = []
    for path in DOCUMENTS:
        for how, _, block in BLOCK.findall(path.read_text()):
            lines = block.replace("\\\n", " ").splitlines()
            words = [shlex.split(line, comments=True) for line in lines]
            if how != "not run":
                found += [Command(path.name, w, how == "dry run") for w in words if w]
    return found


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder that looks like this one, without results."""
    for name in ("Snakefile", "workflow", "lrmoclip", "examples", "envs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results" / "reference", tmp_path / "results" / "reference")
    return tmp_path


def test_there_are_commands_of_both_kinds():
    assert {command.dry for command in commands()} == {True, False}


@pytest.mark.parametrize(
    "command", commands(), ids=lambda c: f"{c.document}: {' '.join(c.words[1:])}"
)
def test_a_command_does_what_it_says(checkout, command):
    program, *words = command.words
    assert program == ".venv/bin/snakemake", "mark it: <!-- not run: why -->"
    dry = ["--dry-run"] if command.dry else []

    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *dry, *words], cwd=checkout, capture_output=True,
        text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    if not command.dry:
        asked = words[words.index("--") + 1 :]
        assert asked and all((checkout / path).exists() for path in asked)


def test_every_block_that_is_not_run_says_why():
    for path in DOCUMENTS:
        for how, why, _ in BLOCK.findall(path.read_text()):
            assert not how or len(why) > 10, path.name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in LINK.findall(path.read_text()):
        file, _, heading = link.partition("#")
        if file.startswith("http"):
            continue
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert heading in [h.lower().replace(" ", "-") for h in headings], link


def test_paths_that_documents_name_are_there():
    for path in DOCUMENTS:
        for named in re.findall(r"`((?:lrmoclip|workflow|tests|envs)/[\w/.-]+)`", path.read_text()):
            made = "paper.lock.json" in named  # by fetch
            assert made or (ROOT / named).exists(), f"{path.name}: {named}"


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_what_is_generated_is_up_to_date(tmp_path):
    copy = tmp_path / "checkout"
    for name in ("README.md", "docs", "results/reference"):
        source, target = ROOT / name, copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)

    status = run(
        "readme", claims=ROOT / "workflow" / "config" / "claims.yaml",
        reference=copy / "results" / "reference", into=[copy / "README.md", copy / "docs/speed.md"],
    )  # fmt: skip

    assert status == 0
    kept = sorted(p.relative_to(copy) for p in (copy / "results").rglob("README.md"))
    assert len(kept) == 3
    for name in ["README.md", "docs/speed.md", *kept]:
        assert (copy / name).read_text() == (ROOT / name).read_text(), name


def test_the_ten_lines_of_the_readme_run(tmp_path, monkeypatch):
    import torch

    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    model = torch.nn.Linear(4, 40)
    targets = torch.tensor([3, 7, 1])
    names = {
        "bound": {"base": "b", "tokenizer": "t", "data": "d"}, "V": 40, "model": model,
        "batches": [(torch.randn(3, 40), targets, [2, 1])], "records": [0, 1],
        "hidden": torch.randn(3, 4), "head_weight": model.weight, "targets": targets,
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)

    exec(block, names)

    names["loss"].backward()
    names["optimizer"].step()
    assert torch.isfinite(names["loss"]) and (tmp_path / "store").is_dir()
