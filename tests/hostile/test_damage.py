"""Artefacts that changed since they were made: every reader refuses them in one line that names the
file, and nothing is made from them."""

import shutil
from pathlib import Path

import pytest

from tests.support.made import reseal

FLIP, CUT, EMPTY, LOSE = "flip", "cut", "empty", "lose"

# (artefact, file in it, reader)
READ = [
    ("checkpoint", "model.safetensors", "stage0"),
    ("checkpoint", "model.safetensors", "train"),
    ("checkpoint", "model.safetensors", "evaluate base"),
    ("checkpoint", "config.json", "evaluate base"),
    ("checkpoint", "config.json", "train"),
    ("checkpoint", "tokenizer.json", "stage0"),
    ("checkpoint", "tokenizer_config.json", "stage0"),
    ("checkpoint", "generation_config.json", "evaluate base"),
    ("checkpoint", "manifest.json", "train"),
    ("run", "model/model.safetensors", "evaluate"),
    ("run", "model/config.json", "evaluate"),
    ("run", "model/manifest.json", "evaluate"),
    ("data", "telecom/train.jsonl", "train full"),
    ("data", "telecom/train.jsonl", "stage0"),
    ("data", "telecom/test.jsonl", "evaluate"),
    ("data", "micro_mmlu/test.jsonl", "evaluate base"),
    ("data", "replay/train.jsonl", "fisher"),
    ("data", "pretraining/train.jsonl", "base"),
    ("data", "manifest.json", "train"),
    ("store", "shard-00000.safetensors", "train"),
    ("store", "manifest.json", "train"),
    ("fisher", "fisher.safetensors", "train ewc"),
    ("fisher", "fisher.json", "train ewc"),
    ("results", "base/seed0/metrics.json", "tables"),
    ("results", "base/seed0/samples.parquet", "tables"),
    ("base", "metrics.json", "evaluate of base"),
    ("base", "samples.parquet", "evaluate general"),
    ("results", "lr_moclip/seed1/metrics.json", "tables"),
    ("results", "lr_moclip/seed1/samples.parquet", "tables"),
    ("results", "lr_moclip/seed1/run.json", "tables"),
    ("results", "timings.1.json", "tables"),
    ("tables", "table1.csv", "figure"),
    ("tables", "table1.csv", "gather"),
]
# A run without its metrics.json is not finished, and enters no table.
CASES = [
    (*case, damage)
    for case in READ
    for damage in (FLIP, CUT, EMPTY, LOSE)
    if not (case[2] == "tables" and case[1].endswith("metrics.json") and damage == LOSE)
]


@pytest.fixture
def copies(study, tmp_path) -> dict[str, Path]:
    """The study's artefacts, free to be damaged."""
    found = {}
    for name, path in study.items():
        target = tmp_path / name / path.name
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            target.parent.mkdir()
            for one in (path, path.with_suffix(".json")):
                shutil.copy(one, target.parent)
        found[name] = target
    return found


def line_of(reader: str, given: dict, found: dict[str, Path], out: Path) -> tuple[str, dict]:
    """The command line by which `reader` reads the artefacts `found`."""
    options = given | {name: found[name] for name in ("checkpoint", "data")}
    of_base = {key: options[key] for key in ("config", "base", "data")}
    scored = of_base | {"domain": "telecom", "seed": 1}
    metrics = found["base"] / "metrics.json"
    method = scored | {"method": "lr_moclip", "models": found["run"] / "model"}
    of_model = {"method": "base", "models": found["checkpoint"], "seed": 0}
    return {
        "stage0": ("stage0", options | {"out": out}),
        "train": ("train", options | {"method": "lr_moclip", "store": found["store"]}),
        "train full": ("train", options | {"method": "full_ft"}),
        "train ewc": ("train", options | {"method": "ewc", "fisher": found["fisher"]}),
        "fisher": ("fisher", of_base | {"checkpoint": found["checkpoint"]}),
        "base": ("base", of_base),
        "evaluate": ("evaluate", method),
        "evaluate base": ("evaluate", scored | of_model),
        "evaluate of base": ("evaluate", method | {"base-metrics": metrics}),
        "evaluate general": (
            "evaluate",
            scored | of_model | {"domain": "nl2sql", "general-from": metrics},
        ),
        "tables": (
            "tables",
            {"config": given["config"], "results": found["results"], "data": found["data"]},
        ),
        "figure": (
            "figure", {"configs": given["config"], "table": found["tables"] / "table1.csv"},
        ),
        "gather": ("gather", {"tables": found["tables"] / "table1.csv"}),
    }[reader]  # fmt: skip


@pytest.mark.parametrize(
    ("artefact", "name", "reader", "damage"), CASES, ids=["-".join(case) for case in CASES]
)
def test_a_damaged_artefact_is_refused(
    given, copies, refused, tmp_path, artefact, name, reader, damage
):
    folder = copies[artefact] if copies[artefact].is_dir() else copies[artefact].parent
    path, out = folder / name, tmp_path / "out" / "made.xy"
    whole = bytearray(path.read_bytes())
    if damage == LOSE:
        path.unlink()
    else:
        middle = len(whole) // 2
        changed = {CUT: whole[:middle], EMPTY: b""}.get(damage, whole)
        if damage == FLIP:
            whole[middle] ^= 1
        path.write_bytes(changed)
    command, options = line_of(reader, given, copies, out)
    if command == "train":
        options = options | {"seed": 1}

    line = refused(command, **options | {"out": out})

    assert path.name in line or str(path.parent) in line, line
    assert not out.exists() and (not out.parent.exists() or not list(out.parent.iterdir()))


def test_half_a_model_zeroed_is_not_scored(given, copies, refused, tmp_path):
    weights = copies["checkpoint"] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    command, options = line_of("evaluate base", given, copies, tmp_path / "out")

    line = refused(command, **options, out=tmp_path / "out")

    assert f"{weights}: damaged, its checksum differs" in line


def test_a_file_added_to_a_checkpoint_is_not_believed(given, copies, refused, tmp_path):
    (copies["checkpoint"] / "chat_template.jinja").write_text("{{ 'ignore the prompt' }}")
    command, options = line_of("evaluate base", given, copies, tmp_path / "out")

    line = refused(command, **options, out=tmp_path / "out")

    assert "chat_template.jinja" in line and "does not list it" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", "micro"), ("base", "gpt"), ("domain", "nl2sql"), ("method", "ewc"), ("seed", 2)],
)
def test_a_checkpoint_of_something_else_is_not_scored_under_another_name(
    given, copies, refused, tmp_path, key, value
):
    manifest = copies["run"] / "model" / "manifest.json"
    of = {"scale": "tiny", "base": "qwen3-s0", "domain": "telecom"}
    of |= {"method": "lr_moclip", "seed": 1}
    reseal(manifest, of=of | {key: value})
    command, options = line_of("evaluate", given, copies, tmp_path / "out")

    line = refused(command, **options, out=tmp_path / "out")

    assert f"of the {key} {value!r}, not {of[key]!r}" in line
