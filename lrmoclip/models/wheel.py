"""A pretrained base model out of a PyPI wheel that carries GGUF weights: found, checked, converted
once to an ordinary checkpoint. The wheel's own runtime is never imported."""

import math
from collections import Counter
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

from lrmoclip.core import files
from lrmoclip.core.errors import UserError

INSTALL = "Install it and its reader: make smollm2"
# Text of our own, so that no corpus holds it, and a question with one answer.
PASSAGE = (
    "A river carries rain and melted snow from the hills to the sea. On its way it wears down "
    "rock, carries sand and mud, and drops them where the water slows. Towns have grown beside "
    "rivers since people first farmed, for the water drives mills, carries boats and feeds the "
    "fields."
)
QUESTION, ANSWER = "What is the capital of France?", "Paris"
WORST_PERPLEXITY = 200.0  # of PASSAGE; a model that knows nothing has one of V


def convert(spec: dict):
    """(model, tokenizer, facts) of a wheel: an entry of `bases` with `wheel` (the distribution),
    `version`, `sha256` (of its GGUF file). The model is float32, whatever it was quantised to.

    facts: wheel, version, file, sha256, quantisation (tensors by GGUF type), perplexity of a fixed
    passage, and the greedy answer to a fixed question. Raises UserError for a wheel that is not
    installed or another one, and for a model that answers or predicts no better than noise.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = find(spec)
    place = {"gguf_file": weights.name, "local_files_only": True, "trust_remote_code": False}
    loaded = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **place)
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **place)
    model = _plain(loaded)
    facts = {
        "wheel": spec["wheel"],
        "version": spec["version"],
        "file": weights.name,
        "sha256": spec["sha256"],
        "quantisation": _quantisation(weights),
    }
    return model, tokenizer, facts | sanity(model, tokenizer)


def find(spec: dict) -> Path:
    """The wheel's GGUF file, its checksum verified."""
    name = spec["wheel"]
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"The wheel {name} is not installed", INSTALL) from None
    if find_spec("gguf") is None:
        raise UserError(f"The package gguf, which reads {name}, is not installed", INSTALL)
    if installed.version != spec["version"]:
        raise UserError(
            f"The wheel {name} is version {installed.version}, not {spec['version']}", INSTALL
        )
    found = [file for file in installed.files or () if file.suffix == ".gguf"]
    if len(found) != 1:
        raise UserError(f"The wheel {name} carries {len(found)} GGUF files, not one", INSTALL)
    weights = Path(installed.locate_file(found[0]))
    if files.sha256(weights) != spec["sha256"]:
        raise UserError(f"{weights}: its checksum is not the config's", INSTALL)
    return weights


@torch.no_grad()
def sanity(model, tokenizer) -> dict:
    """`perplexity` (per token) of PASSAGE and the `greedy` answer to QUESTION by the chat template.

    Raises UserError where they show a model that was read wrongly.
    """
    model.eval()
    passage = tokenizer(PASSAGE, return_tensors="pt")["input_ids"]
    perplexity = math.exp(model(input_ids=passage, labels=passage).loss)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    whole = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    start = prompt["input_ids"].shape[1]
    greedy = tokenizer.decode(whole[start:], skip_special_tokens=True).strip()
    if not perplexity < WORST_PERPLEXITY or ANSWER not in greedy:
        raise UserError(
            f"The converted model is not sane: perplexity {perplexity:.0f} of a plain passage, "
            f"{greedy!r} as the answer to {QUESTION!r}",
            "Report it with the versions of transformers and gguf",
        )
    return {"perplexity": round(perplexity, 2), "question": QUESTION, "greedy": greedy}


def _plain(loaded):
    """The same weights in a model that knows nothing of GGUF: a quantised one can't be saved."""
    from transformers import AutoModelForCausalLM

    settings = loaded.config.to_dict()
    for leftover in ("quantization_config", "_name_or_path"):
        settings.pop(leftover, None)
    model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings))
    model.load_state_dict(loaded.state_dict())
    return model


def _quantisation(weights: Path) -> dict[str, int]:
    from gguf import GGUFReader

    kinds = Counter(tensor.tensor_type.name for tensor in GGUFReader(weights).tensors)
    return dict(sorted(kinds.items()))
