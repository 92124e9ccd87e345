"""A base out of a folder on the user's disk: checked, and read without running any code of it."""

from pathlib import Path

import torch

from lrmoclip.core import files
from lrmoclip.core.errors import UserError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def make(path: Path):
    """(model, tokenizer, facts) of a Hugging Face checkpoint with safetensors; the model float32,
    as it is trained. facts: path, and digests (SHA-256) of its weights by file name.

    UserError for a folder that is none, whose weights are pickles, that asks for code of its own,
    whose weights are not those of its config, or whose tokenizer does not fit.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    weights = _check(path)
    offline = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(path, **offline)
        model, found = AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=torch.float32, use_safetensors=True,
            output_loading_info=True, **offline,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(path, **offline)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable checkpoint ({reason})", _HINT) from None
    if wrong := [*found["missing_keys"], *found["mismatched_keys"]]:
        # transformers would draw these at random.
        name = wrong[0] if isinstance(wrong[0], str) else wrong[0][0]
        raise UserError(f"{path}: no weights for {name} of its config", _HINT)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UserError(
            f"{path}: its tokenizer has {len(tokenizer)} tokens, its model {rows} rows", _HINT
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: its tokenizer has no end of sequence", "Set its eos_token")
    digests = {file.name: files.sha256(file) for file in weights}
    return model, tokenizer, {"path": str(path), "digests": digests}


_HINT = "Name the folder of a causal LM that transformers wrote (save_pretrained)"


def _check(path: Path) -> list[Path]:
    """The weights of a folder. UserError for one of which it is plain that it can't be read."""
    if not path.is_dir():
        raise UserError(f"{path}: no such folder", "Mend bases.<name>.path in the scale's config")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickles = sorted([*path.glob("*.bin"), *path.glob("*.pt"), *path.glob("*.pth")])
        found = f"{pickles[0].name} is a pickle, which may run code" if pickles else "no weights"
        raise UserError(f"{path}: {found}; needs *.safetensors", _HINT)
    if not (path / "config.json").is_file():
        raise UserError(f"{path}: no config.json", _HINT)
    if not any((path / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{path}: no tokenizer", f"Add it: one of {', '.join(TOKENIZERS)}")
    if "auto_map" in files.read_json(path / "config.json"):
        raise UserError(
            f"{path}: its config.json asks for code of its own (auto_map), which is never run",
            "Use a model that transformers knows",
        )
    return weights
