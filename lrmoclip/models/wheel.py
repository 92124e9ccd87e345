"""A pretrained base model out of PyPI wheels that carry GGUF weights, in one file or in parts:
found, checked, converted once to an ordinary checkpoint. No code of the wheels is ever imported."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import torch

from lrmoclip.config.parts import Wheel
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.models.sanity import sanity

READER = "gguf"
PART = re.compile(r"\.gguf\.part(\d+)$")  # of a file that is too large for one wheel


def make(spec: Wheel):
    """(model, tokenizer, facts) of a wheel: an entry of `bases` with `wheel` (the distribution),
    `version`, `sha256` (of its GGUF file, put together). The model is float32, whatever it was
    quantised to.

    facts: wheel, version, file, gguf_sha256, quantisation (tensors by GGUF type), and those of
    `sanity`. Raises UserError for wheels that are not installed or others, and for a model that
    answers or predicts no better than noise.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with weights(spec) as path:
        place = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **place)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
        facts = {
            "wheel": spec.wheel,
            "version": spec.version,
            "file": path.name,
            "gguf_sha256": spec.sha256,
            "quantisation": _quantisation(path),
        }
    model = _plain(loaded)
    return model, tokenizer, facts | sanity(model, tokenizer)


@contextmanager
def weights(spec: Wheel) -> Iterator[Path]:
    """The GGUF file of a wheel, or of its parts put together for as long as the context lasts; its
    checksum verified."""
    _check_installed(READER, "which reads it", None)
    found = _carried(spec)
    with TemporaryDirectory() as folder:
        path = found[0]
        if PART.search(path.name):
            path = Path(folder) / PART.sub(".gguf", path.name)
            with path.open("wb") as whole:
                for part in found:
                    with part.open("rb") as piece:
                        shutil.copyfileobj(piece, whole, 2**20)
        if files.sha256(path) != spec.sha256:
            raise UserError(
                f"{path.name} of the wheel {spec.wheel}: its checksum is not the config's",
                _install(spec.wheel, spec.version),
            )
        yield path


def _carried(spec: Wheel) -> list[Path]:
    """The one GGUF file of a wheel, or the parts of one, in it and in the wheels it requires."""
    installed = _check_installed(spec.wheel, "the config's base", spec.version)
    wheels = [installed]
    for requirement in installed.requires or ():
        name, _, version = re.split(r"[;\s]", requirement)[0].partition("==")
        if version:  # its data; what it runs with is never needed
            wheels.append(_check_installed(name, f"a part of {spec.wheel}", version))
    listed = [(wheel, file) for wheel in wheels for file in wheel.files or ()]
    whole = [wheel.locate_file(file) for wheel, file in listed if file.suffix == ".gguf"]
    parts = sorted(
        (int(number.group(1)), Path(wheel.locate_file(file)))
        for wheel, file in listed
        if (number := PART.search(PurePath(file).name))
    )
    if [number for number, _ in parts] != list(range(len(parts))) or len(whole) + bool(parts) != 1:
        raise UserError(
            f"The wheel {spec.wheel} carries {len(whole)} GGUF files and {len(parts)} parts, not "
            "one file or all parts of one",
            _install(spec.wheel, spec.version),
        )
    return [Path(path) for path in whole] or [path for _, path in parts]


def _check_installed(name: str, words: str, version: str | None) -> metadata.Distribution:
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"The package {name}, {words}, is not installed", _install(name, version)
        ) from None
    if version and installed.version != version:
        raise UserError(
            f"The package {name}, {words}, is version {installed.version}, not {version}",
            _install(name, version),
        )
    return installed


def _install(name: str, version: str | None) -> str:
    # Without dependencies: a wheel may ask for a runtime that must be compiled and is never used.
    pinned = f"{name}=={version}" if version else name
    return f"Install it: make smollm2, or .venv/bin/pip install --no-deps {pinned} {READER}"


def _plain(loaded):
    """The same weights in a model that knows nothing of GGUF: a quantised one can't be saved."""
    from transformers import AutoModelForCausalLM

    settings = loaded.config.to_dict()
    for leftover in ("quantization_config", "_name_or_path"):
        settings.pop(leftover, None)
    model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    return model


def _quantisation(path: Path) -> dict[str, int]:
    from gguf import GGUFReader

    kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
    return dict(sorted(kinds.items()))
