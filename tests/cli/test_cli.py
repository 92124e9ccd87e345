"""The command line: every mistake is one line and leaves nothing; the arrows make what they say."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lrmoclip.cli.main import main
from lrmoclip.core import files
from lrmoclip.core.artefacts import MANIFEST
from lrmoclip.core.store import shard_name
from lrmoclip.models.checkpoints import TOKENIZER, WEIGHTS
from tests.conftest import METHODS, TINY, named
from tests.support.made import as_data, reseal, run

# A tiny base is cold; that it is said is a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:telecom")

# What the run record must hold, in the order of the issue's paragraph "Logged for every run".
LOGGED = {
    "loss", "grad_norm", "loss_spikes", "gold_in_set", "gold_in_set_eos", "set_size_mean",
    "set_size_max", "outside_mass_start", "outside_mass", "clip_rate", "median_angle", "tokens",
    "step_s", "peak_memory_mb", "warnings", "seed", "lr", "method", "domain", "base", "scale",
    "wall_s", "provenance",
}  # fmt: skip
SETS = {"gold_in_set", "gold_in_set_eos", "set_size_mean", "set_size_max", "outside_mass"}
ANGLES = {"clip_rate", "median_angle"}
LOADING = re.compile("$|Loading weights: ")  # transformers' progress bar, and the line before it


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "results" / "out"


@pytest.fixture
def refused(capsys, out):
    """`refused(command, **options)`: the line that a mistake is answered with."""

    def refusal(command: str, **options) -> str:
        status = run(command, **{"out": out} | options)
        lines = [line for line in capsys.readouterr().err.splitlines() if not LOADING.match(line)]

        assert status == 2
        assert not out.parent.exists() or list(out.parent.iterdir()) == []
        # Nothing else, so no progress bar either: a mistake is found before the work begins.
        assert [line[:7] for line in lines] == ["error: "], lines
        return lines[0]

    return refusal


@pytest.fixture
def copied(tmp_path):
    """A folder's copy that a test may damage."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / folder.name))


TRAIN = {"method": "full_ft", "seed": 1}
RESTRICTED = {"method": "lr_moclip", "seed": 1}


# Which options of a working `train` are changed, and what the error must name.
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": "none.yaml"}, ["none.yaml: no such file"]),
        ({"config": METHODS}, ["methods.yaml"]),
        ({"domain": "law"}, [str(TINY), "unknown domain 'law'", "telecom, nl2sql"]),
        ({"method": "magic"}, [str(TINY), "unknown method 'magic'", "full_ft, lora"]),
        ({"base": "gpt"}, [str(TINY), "unknown base 'gpt'", "qwen3-s0"]),
        ({"checkpoint": "none"}, ["none: no checkpoint folder", "lrmoclip base"]),
        ({"data": "none"}, ["none: no data folder", "lrmoclip data"]),
        ({"domain": "replay"}, ["replay"]),
        ({"method": "ewc"}, ["Fisher", "lrmoclip fisher"]),
        ({"method": "ewc", "fisher": "none"}, ["none: no Fisher file", "lrmoclip fisher"]),
        (RESTRICTED, ["telecom", "candidate store", "--store"]),
        (RESTRICTED | {"store": "none"}, ["none: no candidate store", "lrmoclip stage0"]),
    ],
    ids=named,
)
def test_a_wrong_option_is_named(given, refused, changed, words):
    line = refused("train", **given | TRAIN | changed)

    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("command", "more"), [("data", ()), ("base", ("base", "data")), ("train", None)]
)
def test_a_value_out_of_range_is_named_by_every_arrow(edit, given, refused, command, more):
    path = edit(TINY, {"stage0/coverage": 1.7})
    options = given | TRAIN if more is None else {name: given[name] for name in more}

    line = refused(command, **options | {"config": path})

    words = (str(path), "stage0.coverage", "1.7", "less than or equal to 1")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("command", ["stage0", "train", "fisher"])
def test_a_base_of_another_config_is_refused(given, refused, copied, command):
    base = copied(given["checkpoint"])
    reseal(base / MANIFEST, config="0123456789abcdef")
    options = given | {"checkpoint": base} | (TRAIN if command == "train" else {})
    if command == "fisher":
        del options["domain"]

    line = refused(command, **options)

    assert f"{base}: base checkpoint made from another config" in line and "Delete" in line


def test_a_base_is_refused_after_its_config_changed(edit, given, refused):
    path = edit(TINY, {"bases/qwen3-s0/steps": 5})

    line = refused("train", **given | TRAIN | {"config": path})

    assert "base checkpoint made from another config" in line


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER, MANIFEST, "config.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "no UTF-8"])
def test_a_damaged_base_is_named(given, refused, copied, name, damage):
    base = copied(given["checkpoint"])
    whole = (base / name).read_bytes()
    (base / name).write_bytes({"cut": whole[:-9], "empty": b"", "no UTF-8": b"\xff"}[damage])

    line = refused("train", **given | TRAIN | {"checkpoint": base})

    assert str(base) in line


def test_a_base_that_lacks_a_tensor_is_refused(given, refused, copied):
    base = copied(given["checkpoint"])
    tensors = load_file(base / WEIGHTS)
    del tensors["model.layers.0.mlp.down_proj.weight"]
    save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})

    line = refused("train", **given | TRAIN | {"checkpoint": base})

    assert str(base) in line


def test_a_damaged_store_is_named(given, store, refused, copied):
    damaged = copied(store)
    shard = damaged / shard_name(0)
    shard.write_bytes(shard.read_bytes()[:-1])

    line = refused("train", **given | RESTRICTED | {"store": damaged})

    assert f"{shard}: damaged" in line and "lrmoclip stage0" in line


def test_a_store_of_another_data_file_is_refused(given, store, refused, copied):
    data = copied(given["data"])
    lines = (data / "telecom" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    files.write_text(data / "telecom" / "train.jsonl", "\n".join(lines[1:]) + "\n")
    as_data(data)

    line = refused("train", **given | RESTRICTED | {"store": store, "data": data})

    assert f"{store}: candidate store made from another data file" in line


def test_a_store_of_another_base_is_refused(given, store, refused, copied):
    base = copied(given["checkpoint"])
    weights = bytearray((base / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (base / WEIGHTS).write_bytes(weights)
    digests = files.read_json(base / MANIFEST)["files"]
    reseal(base / MANIFEST, files=digests | {WEIGHTS: hashlib.sha256(weights).hexdigest()})

    line = refused("train", **given | RESTRICTED | {"store": store, "checkpoint": base})

    assert f"{store}: candidate store made from another base model" in line


@pytest.mark.parametrize("command", ["stage0", "train"])
def test_a_broken_line_of_data_is_named_with_its_number(given, refused, copied, command):
    data = copied(given["data"])
    path = data / "telecom" / "train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:6], lines[6][:-9], *lines[7:]]), encoding="utf-8")
    as_data(data)
    options = given | {"data": data} | (TRAIN if command == "train" else {})

    line = refused(command, **options)

    assert f"{path}, line 7: not JSON" in line


@pytest.mark.parametrize("command", ["data", "stage0"])
def test_an_out_folder_below_a_file_is_named(given, tmp_path, capsys, command):
    taken = tmp_path / "taken"
    taken.write_text("kept", encoding="utf-8")
    options = {"config": TINY} if command == "data" else given

    status = run(command, **options, out=taken / "out")

    line = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert line.startswith("error: ") and f"{taken / 'out'}: cannot be written" in line
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert taken.read_text(encoding="utf-8") == "kept"


def test_an_option_that_is_no_number_is_refused(given, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("train", **given, method="full_ft", seed="one", out="none")

    assert stopped.value.code == 2 and "--seed" in capsys.readouterr().err


def test_data_is_made_whole(given, tmp_path):
    assert run("data", config=TINY, out=tmp_path / "data") == 0

    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data" / "telecom" / "train.jsonl").read_bytes() == (
        given["data"] / "telecom" / "train.jsonl"
    ).read_bytes()


def test_a_store_records_what_it_was_made_from(given, store):
    manifest = json.loads((store / MANIFEST).read_text(encoding="utf-8"))

    assert manifest["base"] == files.sha256(given["checkpoint"] / WEIGHTS)
    assert manifest["tokenizer"] == files.sha256(given["checkpoint"] / TOKENIZER)
    assert manifest["data"] == files.sha256(given["data"] / "telecom" / "train.jsonl")
    assert manifest["settings"]["coverage"] == 0.99
    assert {"config", "dtype", "commit", "hardware", "versions"} <= set(manifest["provenance"])
    assert manifest["provenance"]["dtype"] == "float32"


def test_a_run_makes_a_model_a_log_and_a_summary(trained):
    from lrmoclip.models import checkpoints

    names = {MANIFEST, "model", "training.csv", "run.json"}
    assert {p.name for p in trained.iterdir()} == names
    model = checkpoints.folder(trained / "model")
    assert checkpoints.load_model(model).config.vocab_size == 8192
    assert checkpoints.load_tokenizer(model).eos_token == "<eos>"


def test_a_run_logs_what_the_issue_asks(trained, tiny_scale):
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    with (trained / "training.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    steps = 3  # 0.03 epochs of 800 records in batches of 8
    assert set(record) >= LOGGED and all(record[name] is not None for name in LOGGED)
    assert 0 <= record["gold_in_set"] <= 1 and 1 <= record["set_size_mean"] <= 9
    assert record["method"] == "lr_moclip" and record["seed"] == 1
    assert {"seed", "config", "commit", "hardware", "versions"} <= set(record["provenance"])
    assert [row["step"] for row in rows] == [str(step) for step in range(steps + 1)]
    assert all(row["loss"] and row["grad_norm"] and row["step_s"] for row in rows[:steps])
    assert all(row["clip_rate"] and row["median_angle"] for row in rows[1:steps])
    assert [bool(row["outside_mass"]) for row in rows] == [True, False, True, True]


def test_a_cold_base_is_warned_of(given, store, trained, tmp_path):
    record = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    options = given | RESTRICTED | {"store": store}

    with pytest.warns(UserWarning, match=r"telecom, lr_moclip, seed 1: .* % of the gold tokens"):
        run("train", **options, out=tmp_path / "run")

    assert "gold tokens" in record["warnings"][0]


def test_a_run_without_sets_leaves_their_fields_empty(given, tmp_path):
    assert run("train", **given | TRAIN, out=tmp_path / "run") == 0

    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    empty = {name for name in LOGGED if record[name] is None}
    assert empty == SETS | ANGLES | {"outside_mass_start"}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    given, store, trained, tmp_path
):
    for seed in (1, 2):
        options = given | {"method": "lr_moclip", "seed": seed, "store": store}
        assert run("train", **options, out=tmp_path / f"seed{seed}") == 0

    first, again, other = (
        files.sha256(folder / "model" / WEIGHTS)
        for folder in (trained, tmp_path / "seed1", tmp_path / "seed2")
    )
    assert first == again != other


def test_training_changes_the_base_and_leaves_its_file(given, trained):
    base = given["checkpoint"] / WEIGHTS

    assert files.sha256(trained / "model" / WEIGHTS) != files.sha256(base)
    assert files.sha256(trained / "model" / TOKENIZER) == files.sha256(
        given["checkpoint"] / TOKENIZER
    )


def test_seeds_trained_in_one_process_are_those_trained_alone(given, store, trained, tmp_path):
    outs = [str(tmp_path / "seed9"), str(tmp_path / "seed1")]
    options = given | {"method": "lr_moclip", "store": store}
    argv = [word for name, value in options.items() for word in (f"--{name}", str(value))]

    assert main(["train", *argv, "--seeds", "9", "1", "--outs", *outs]) == 0

    alone = (trained / "model" / WEIGHTS).read_bytes()
    assert (tmp_path / "seed1" / "model" / WEIGHTS).read_bytes() == alone


def test_as_many_folders_as_seeds_are_asked_for(given, capsys):
    argv = [word for name, value in given.items() for word in (f"--{name}", str(value))]

    assert main(["train", *argv, "--method", "full_ft", "--seeds", "1", "2", "--outs", "a"]) == 2

    assert "--seeds, --outs differ in number" in capsys.readouterr().err
