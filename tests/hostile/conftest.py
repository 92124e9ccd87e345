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
    results, fisher = root / "results", root / "fisher.safetensors"
    base, trained_run = results / "base" / "seed0", results / "lr_moclip" / "seed1"
    timings = results / "timings.1.json"
    scored = {key: given[key] for key in ("config", "base", "domain", "data")}
    models = {"models": given["checkpoint"], "seed": 0, "out": base}
    assert run("evaluate", **scored, method="base", **models) == 0
    shutil.copytree(trained, trained_run)
    models = {"models": trained_run / "model", "seed": 1, "out": trained_run}
    assert run("evaluate", **scored, method="lr_moclip", **models) == 0
    assert run("timings", **given, methods="lr_moclip", store=store, out=timings) == 0
    made = {key: given[key] for key in ("config", "base", "checkpoint", "data")}
    assert run("fisher", **made, out=fisher) == 0
    found = {"results": results, "data": given["data"]}
    assert run("tables", config=given["config"], **found, out=root / "tables") == 0
    return {
        "checkpoint": given["checkpoint"], "data": given["data"], "store": store, "base": base,
        "results": results, "run": trained_run, "timings": timings, "fisher": fisher,
        "tables": root / "tables",
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
