"""What tests do to artefacts: read their lines, change them and seal them anew, describe a folder
of data that was written by hand."""

import json
from pathlib import Path

from lrmoclip.cli.main import main
from lrmoclip.core import artefacts, files
from lrmoclip.data import records
from lrmoclip.models import checkpoints


def run(command: str, **options) -> int:
    """One arrow; `train` takes lists of seeds and folders, here of one each."""
    lists = {"seed": "seeds", "out": "outs"} if command in ("train", "evaluate") else {}
    argv = [command]
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        argv += [f"--{lists.get(name, name).replace('_', '-')}", *map(str, values)]
    return main(argv)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_json(path: Path, value) -> None:
    """One that nothing is sealed by."""
    files.write_text(path, json.dumps(value))


def reseal(path: Path, **changes) -> None:
    """Change entries of a sealed JSON, as its own writer would have written them."""
    kind = files.read_json(path)["kind"]
    files.write_sealed(path, kind, {**files.read_sealed(path, kind), **changes})


def as_data(folder: Path, **about) -> artefacts.Folder:
    """A folder of files as a scale's data folder."""
    artefacts.seal(folder, records.KIND, about)
    return records.folder(folder)


def as_checkpoint(folder: Path, **about) -> artefacts.Folder:
    artefacts.seal(folder, checkpoints.KIND, about)
    return checkpoints.folder(folder)


def load(path: Path):
    """Model and tokenizer of a checkpoint folder."""
    folder = checkpoints.folder(path)
    return checkpoints.load_model(folder), checkpoints.load_tokenizer(folder)
