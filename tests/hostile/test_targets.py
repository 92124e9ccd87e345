"""Where a user may point an option that is written to: what is there and not ours stays."""

import os
from pathlib import Path

import pytest

from lrmoclip.core.holding import Hold
from tests.support.made import run


def everything(folder: Path) -> dict[str, tuple]:
    """Of every path below: what it is, and a file's bytes."""
    return {
        p.relative_to(folder).as_posix(): (
            p.is_symlink(),
            p.is_dir(),
            p.is_file() and p.read_bytes(),
        )
        for p in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def writing(given, store, study) -> dict[str, dict]:
    """A working command line for each command that writes, without its target."""
    of_base = {key: given[key] for key in ("config", "base", "data")}
    scored = {**of_base, "domain": "telecom", "method": "lr_moclip"}
    return {
        "data": {"config": given["config"]},
        "base": of_base,
        "stage0": given,
        "fisher": {**of_base, "checkpoint": given["checkpoint"]},
        "train": {**given, "method": "lr_moclip", "store": store, "seed": 1},
        "evaluate": {**scored, "models": study["run"] / "model", "seed": 1},
        "tune": {**given, "method": "lr_moclip", "store": store},
        "timings": {**given, "methods": "lr_moclip", "store": store},
        "tables": {"config": given["config"], "results": study["results"]},
        "gather": {"tables": study["tables"] / "table1.csv"},
        "figure": {"configs": given["config"], "table": study["tables"] / "table1.csv"},
    }  # fmt: skip


FOLDERS = ("data", "base", "stage0", "train")
# Commands that write files, and what they would write over in the folder `thesis`.
FILES = {
    "fisher": ("plan.safetensors", ["plan.safetensors"]),
    "tune": ("plan.csv", ["plan.csv"]),
    "timings": ("plan.json", ["plan.json"]),
    "gather": ("plan.csv", ["plan.csv"]),
    "figure": ("plan.png", ["plan.png"]),
    "figure ": ("plan.png", ["plan.svg"]),
    "evaluate": (".", ["metrics.json"]),
    "evaluate ": (".", ["samples.parquet"]),
    "tables": (".", ["table1.csv"]),
    "tables ": (".", ["provenance.json"]),
}


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize("below", ["", "figures"])
def test_a_folder_of_a_users_files_is_spared(writing, thesis, refused, command, below):
    before = everything(thesis)

    line = refused(command, **writing[command], out=thesis / below)

    assert str(thesis / below) in line and "replaces nothing but a" in line
    assert everything(thesis) == before


@pytest.mark.parametrize(("command", "case"), FILES.items(), ids=FILES)
def test_a_file_of_a_users_is_spared(writing, thesis, refused, command, case):
    out, names = case
    for name in names:
        (thesis / name).write_text("weeks of work")
    before = everything(thesis)

    line = refused(command.strip(), **writing[command.strip()], out=thesis / out)

    assert names[0] in line and "there already" in line
    assert everything(thesis) == before


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize("out", [".", "..", "../here", "/", "home", "repository", "link"])
def test_places_that_others_live_in_are_spared(
    writing, tmp_path, monkeypatch, refused, command, out
):
    here = tmp_path / "here"
    for name in ("home", "repository/.git", "behind"):
        (here / name).mkdir(parents=True)
    (here / "link").symlink_to("behind")
    (here / "years of work").write_text("kept")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here / "home"))
    before = everything(tmp_path)

    refused(command, **writing[command], out=out)

    assert everything(tmp_path) == before


def test_a_store_is_no_run_and_a_run_no_base(writing, study, refused, tmp_path):
    before = {name: everything(study[name]) for name in ("store", "run", "checkpoint", "data")}
    for command, out in (("train", "store"), ("base", "run"), ("stage0", "checkpoint")):
        line = refused(command, **writing[command], out=study[out])
        assert "holds a" in line, line

    assert {name: everything(study[name]) for name in before} == before


@pytest.mark.parametrize("command", [*FOLDERS, "tune"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    writing, tmp_path, refused, command
):
    (tmp_path / "file").write_text("kept")

    line = refused(command, **writing[command], out=tmp_path / "file" / "below.csv")

    assert str(tmp_path / "file") in line
    assert everything(tmp_path) == {"file": (False, False, b"kept")}


def test_what_was_made_is_made_again(writing, tmp_path):
    for _ in range(2):
        assert run("data", **writing["data"], out=tmp_path / "data") == 0

    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("command", [*FOLDERS, "fisher", "tune", "timings"])
def test_a_target_that_another_process_works_on_is_refused(writing, tmp_path, refused, command):
    # Of a file, what is held is the JSON that describes it.
    target = tmp_path / "out.json" if command not in FOLDERS else tmp_path / "out"
    out = tmp_path / ("out.json" if command == "timings" else "out")
    hold = Hold(target, lambda _: None)

    line = refused(command, **writing[command], out=out)

    assert f"process {os.getpid()} on" in line and "is writing it" in line
    hold.release()
    assert list(tmp_path.iterdir()) == []
