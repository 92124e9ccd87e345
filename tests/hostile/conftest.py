"""One finished study, to be damaged in copies; and a folder of a user's, to be spared."""

import shutil
from pathlib import Path

import pytest

from lrmoclip.core import files
from tests.support.made import run


@pytest.fixture(scope="session")
def study(given, store, trained, tmp_path_factory) -> dict[str, Path]:
    """Every kind of artefact that a rule hands to another, of the domain telecom."""
    root = tmp_path_factory.mktemp("study")
    base, timings, fisher = root / "base", root / "timings.json", root / "fisher.safetensors"
    scored = {key: given[key] for key in ("config", "base", "domain", "data")}
    models = {"models": given["checkpoint"], "seed": 0, "out": base}
    assert run("evaluate", **scored, method="base", **models) == 0
    shutil.copytree(trained, root / "seed1")
    models = {"models": root / "seed1" / "model", "seed": 1, "out": root / "seed1"}
    assert run("evaluate", **scored, method="lr_moclip", **models) == 0
    assert run("timings", **given, methods="lr_moclip", store=store, out=timings) == 0
    made = {key: given[key] for key in ("config", "base", "checkpoint", "data")}
    assert run("fisher", **made, out=fisher) == 0
    runs = {"runs": [base, root / "seed1"], "timed": timings, "data": given["data"]}
    assert run("tables", config=given["config"], **runs, out=root / "tables") == 0
    return {
        "checkpoint": given["checkpoint"], "data": given["data"], "store": store, "base": base,
        "run": root / "seed1", "timings": timings, "fisher": fisher, "tables": root / "tables",
    }  # fmt: skip


@pytest.fixture
def refused(capsys):
    """`refused(command, **options)`: the line that a mistake is answered with, and nothing else."""

    def refusal(command: str, **options) -> str:
        capsys.readouterr()
        status = run(command, **options)
        said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        # transformers draws a bar while it loads weights.
        lines = [line for line in said if not line.startswith(("Loading weights", "\r"))]
        assert status == 2, said
        assert lines[-1].startswith("error: ") and len(lines) == 1, lines
        return lines[0]

    return refusal


@pytest.fixture
def thesis(tmp_path) -> Path:
    """A folder of a user's files."""
    folder = tmp_path / "thesis"
    files.write_text(folder / "chapter1.tex", "years of work")
    files.write_text(folder / "figures" / "plot.png", "months of work")
    return folder
