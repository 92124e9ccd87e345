"""Command lines that someone might type: each mistake is one line that names what is wrong."""

import math
import multiprocessing
import os
import resource
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from lrmoclip.core import artefacts, files
from lrmoclip.core.errors import UserError
from lrmoclip.models import checkpoints
from lrmoclip.models.checkpoints import WEIGHTS
from tests.conftest import TINY
from tests.support.made import as_checkpoint, as_data, load, read_lines, reseal, run, write_json


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def scored(given, study) -> dict:
    """A working `evaluate`."""
    kept = {key: given[key] for key in ("config", "base", "domain", "data")}
    return kept | {"method": "lr_moclip", "models": study["run"] / "model", "seed": 1}


# Options of a working `train` or `evaluate` that are changed, and what the error names.
RUNS = [
    ("train", {"seed": 2**70}, "--seeds: 1180591620717411303424"),
    ("train", {"seed": -1}, "--seeds: -1"),
    ("train", {"seed": [1, 1], "out": ["a", "b"]}, "--seeds: 1 stands twice"),
    ("train", {"seed": [1, 2], "out": ["a", "./a"]}, "stands twice"),
    ("train", {"seed": [1, 2], "out": ["a"]}, "--seeds, --outs differ in number"),
    ("train", {"method": "base"}, "always there and is not trained"),
    ("train", {"domain": "../telecom"}, "unknown domain '../telecom'"),
    ("train", {"domain": ""}, "unknown domain ''"),
    ("evaluate", {"base": "gpt"}, "unknown base 'gpt'"),
    ("evaluate", {"method": "magic"}, "unknown method 'magic'"),
    ("evaluate", {"domain": "law"}, "unknown domain 'law'"),
    ("evaluate", {"seed": 2}, "of the seed 1, not 2"),
    ("evaluate", {"models": "none"}, "none: no checkpoint folder"),
    ("evaluate", {"general-from": "none"}, "none: cannot be read"),
    ("evaluate", {"general-from": TINY}, "tiny.yaml, line 1: not JSON"),
    ("evaluate", {"base-metrics": TINY}, "tiny.yaml, line 1: not JSON"),
]


@pytest.mark.parametrize(("command", "changed", "words"), RUNS)
def test_a_wrong_run_is_refused(
    given, store, scored, refused, tmp_path, monkeypatch, command, changed, words
):
    monkeypatch.chdir(tmp_path)
    options = scored if command == "evaluate" else given | {"method": "lr_moclip", "store": store}

    line = refused(command, **{"seed": 1, "out": "out"} | options | changed)

    assert words in line
    assert list(tmp_path.iterdir()) == []


# Commands that read tables and records, given what is none.
WRONG = {
    "no such file": lambda path: path,
    "a folder": lambda path: path.mkdir() or path,
    "nothing": lambda path: path.touch() or path,
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\xff") and path,
    "text": lambda path: path.write_text("dear diary\n") and path,
    "another table": lambda path: path.write_text("a,b\n1,2\n") and path,
    "JSON": lambda path: path.write_text("{}") and path,
    "a list": lambda path: path.write_text("[1]") and path,
}
READERS = [
    ("figure", "table"),
    ("scaling", "table"),
    ("gather", "tables"),
    ("learning-rates", "sweeps"),
]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(("command", "option"), READERS, ids=["-".join(r) for r in READERS])
def test_a_wrong_file_is_named(given, study, refused, tmp_path, out, command, option, wrong):
    path = wrong(tmp_path / "wrong.csv")
    config = {"figure": "configs", "learning-rates": "config"}
    options = {option: path} | ({config[command]: given["config"]} if command in config else {})

    line = refused(command, **options, out=out / "made.csv")

    assert str(path) in line
    assert not out.exists()


@pytest.mark.parametrize("wrong", list(WRONG.values())[2:], ids=list(WRONG)[2:])
@pytest.mark.parametrize(
    "name", ["base/seed0/metrics.json", "lr_moclip/seed1/run.json", "timings.1.json"]
)
def test_a_wrong_file_among_results_is_named(given, study, refused, tmp_path, out, name, wrong):
    results = Path(shutil.copytree(study["results"], tmp_path / "results"))
    (results / name).unlink()
    wrong(results / name)

    assert name in refused("tables", config=given["config"], results=results, out=out)
    assert not out.exists()


def test_results_without_a_finished_run_make_no_table(given, refused, tmp_path, out):
    line = refused("tables", config=given["config"], results=tmp_path / "none", out=out)

    assert "none: no finished run" in line


def test_a_method_that_no_config_knows_is_not_drawn(given, study, refused, out, tmp_path):
    table = pd.read_csv(study["tables"] / "table1.csv").replace("lr_moclip", "magic")
    table.to_csv(tmp_path / "table1.csv", index=False)

    line = refused(
        "figure", configs=given["config"], table=tmp_path / "table1.csv", out=out / "plot.png"
    )

    assert "unknown method 'magic'" in line


def test_a_table_with_text_for_numbers_is_named(given, study, refused, out, tmp_path):
    table = pd.read_csv(study["tables"] / "table1.csv").astype({"domain_score": object})
    table.loc[0, "domain_score"] = "high"
    table.to_csv(tmp_path / "table1.csv", index=False)

    line = refused(
        "figure", configs=given["config"], table=tmp_path / "table1.csv", out=out / "plot.png"
    )

    assert "column domain_score has other things than numbers" in line


def test_results_of_another_scale_make_no_table(study, edit, refused, out):
    other = edit(TINY, {"scale": "other"})

    line = refused("tables", config=other, results=study["results"], out=out)

    assert "of the scale tiny, not other" in line


def test_runs_without_their_timings_make_no_table(study, refused, out, tmp_path):
    results = Path(shutil.copytree(study["results"], tmp_path / "results"))
    reseal(results / "timings.1.json", step_s={"full_ft": 1.0})

    assert "no timings of lr_moclip" in refused("tables", config=TINY, results=results, out=out)


# Checkpoints that are whole by their manifest, and can't be used.
def _unknown_family(folder: Path) -> None:
    config = files.read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"model_type": "magic"})


def _other_shape(folder: Path) -> None:
    config = files.read_json(folder / "config.json")
    write_json(folder / "config.json", config | {"intermediate_size": 64})


def _lost_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.0.mlp.down_proj.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _more_tokens_than_rows(folder: Path) -> None:
    _, tokenizer = load(folder)
    tokenizer.add_tokens([f"token{i}" for i in range(9)])
    tokenizer.save_pretrained(folder)


def _no_weights_at_all(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"x" * 100)


@pytest.mark.parametrize(
    "broken",
    [_unknown_family, _other_shape, _lost_tensor, _more_tokens_than_rows, _no_weights_at_all],
)
@pytest.mark.parametrize("command", ["stage0", "train", "evaluate"])
def test_a_checkpoint_that_cannot_be_used_is_named(
    given, scored, refused, out, tmp_path, broken, command
):
    folder = Path(shutil.copytree(given["checkpoint"], tmp_path / "base"))
    about = files.read_sealed(folder / "manifest.json", checkpoints.KIND)
    broken(folder)
    (folder / "manifest.json").unlink()
    as_checkpoint(folder, **{key: value for key, value in about.items() if key != "files"})
    options = given | {"checkpoint": folder} | ({} if command == "stage0" else {"seed": 1})
    if command == "train":
        options["method"] = "full_ft"
    if command == "evaluate":
        options = scored | {"models": folder, "method": "base", "seed": 0}

    line = refused(command, **options, out=out)

    assert str(folder) in line and not out.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_not_saved(given, tmp_path, value):
    model, tokenizer = load(given["checkpoint"])
    model.model.norm.weight.data[3] = value

    with (
        pytest.raises(UserError, match="not finite"),
        artefacts.folder(tmp_path / "base", checkpoints.KIND) as made,
    ):
        checkpoints.save(made.path, model, tokenizer)

    assert list(tmp_path.iterdir()) == []


def test_a_base_whose_training_diverges_is_said_and_not_saved(given, out, tmp_path, monkeypatch):
    monkeypatch.setattr("lrmoclip.models.scratch._accumulate", lambda model, data, chosen: math.nan)
    options = {key: given[key] for key in ("config", "base", "data")}

    status, said = in_a_fork(tmp_path / "said", "base", options | {"out": out})

    assert status == 2 and not out.exists()
    assert said[-1].startswith("error: pretraining: the loss is nan at step 0")


def in_a_fork(said: Path, command: str, options: dict, limit: int | None = None):
    """(exit status, lines on the screen) of a command in a process whose files may not grow beyond
    `limit` bytes: the system then refuses to write more, as it does on a full disk."""

    def child() -> None:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        if limit is not None:
            # The screen is no file of ours; what is said is short.
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os._exit(run(command, **options))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode, [line for line in said.read_text().splitlines() if line.strip()]


FULL = [
    ("data", 5_000, None),
    ("base", 5_000, None),
    ("base", 5_000, "transformers.PreTrainedModel.save_pretrained"),  # then the tokenizer is full
    ("stage0", 5_000, None),
    ("train", 5_000, None),
    ("figure", 5_000, None),
    ("gather", 400, None),
]


@pytest.mark.parametrize(("command", "limit", "left_out"), FULL)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    given, study, tmp_path, monkeypatch, command, limit, left_out
):
    table = study["tables"] / "table1.csv"
    options = {
        "data": {"config": TINY}, "base": {k: given[k] for k in ("config", "base", "data")},
        "stage0": given, "train": given | {"method": "full_ft", "seed": 1},
        "figure": {"configs": TINY, "table": table}, "gather": {"tables": table},
    }[command]  # fmt: skip
    if left_out:
        monkeypatch.setattr(left_out, lambda *_, **__: None)
    work = tmp_path / "work"
    work.mkdir()
    out = work / "deep" / "made.png"

    status, said = in_a_fork(tmp_path / "said", command, options | {"out": out}, limit)

    assert status == 2, said
    assert said[-1].startswith("error: ") and "made" in said[-1] and "Free disk space" in said[-1]
    assert "Traceback" not in "".join(said)
    assert list(work.iterdir()) == []


def _with_record(given: dict, folder: Path, name: str, **changes) -> Path:
    """The data with the first record of a file changed."""
    shutil.copytree(given["data"], folder)
    lines = read_lines(folder / name)
    files.write_jsonl(folder / name, [lines[0] | changes, *lines[1:]])
    (folder / "manifest.json").unlink()
    as_data(folder)
    return folder


def test_a_record_beyond_the_context_is_named_by_training(given, refused, out, tmp_path):
    data = _with_record(given, tmp_path / "data", "telecom/train.jsonl", prompt="the " * 600)

    line = refused("stage0", **given | {"data": data}, out=out)

    assert "train.jsonl: record " in line and "the model reads 512" in line


@pytest.mark.parametrize("name", ["telecom/test.jsonl", "micro_math/test.jsonl"])
def test_an_item_beyond_the_context_is_named_by_evaluation(given, scored, refused, tmp_path, name):
    data = _with_record(given, tmp_path / "data", name, prompt="the " * 512)

    options = scored | {"data": data, "method": "base", "models": given["checkpoint"], "seed": 0}
    line = refused("evaluate", **options, out=tmp_path / "out")

    assert f"{name.split('/')[0]}, record " in line and "the model reads 512" in line
