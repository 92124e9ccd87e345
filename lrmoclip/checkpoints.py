"""Base models and trained models: ordinary Hugging Face checkpoints, read without remote code."""

from pathlib import Path

from lrmoclip import files
from lrmoclip.errors import UserError

WEIGHTS, TOKENIZER, PROVENANCE = "model.safetensors", "tokenizer.json", "provenance.json"
_AGAIN = "Delete the folder and run again"


def load_model(folder: Path, device: str | None = None):
    """The causal LM of a checkpoint folder, in evaluation mode on `device`, by default the best
    there is."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    _require(folder, WEIGHTS)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder, error) from None
    if wrong := [*found["missing_keys"], *found["mismatched_keys"]]:
        # transformers would draw these at random.
        raise UserError(f"{folder}: weights without {wrong[0]}", _AGAIN)
    return model.eval().to(device or best_device())


def best_device() -> str:
    """Where models compute: the GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Path):
    """The tokenizer of a checkpoint folder."""
    from transformers import AutoTokenizer

    _require(folder, TOKENIZER)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust side raises bare Exceptions
        raise _damaged(folder, error) from None


def save(folder: Path, model, tokenizer, provenance: dict) -> None:
    """Write model and tokenizer into `folder`, which must be a temporary one (`files.whole`)."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    hashes = {"weights": files.sha256(Path(folder) / WEIGHTS)}
    files.write_json(folder / PROVENANCE, {**provenance, **hashes})


def identity(folder: Path, config: str) -> dict[str, str]:
    """Hashes of a base model and of its tokenizer, as a candidate store records them.

    Raises UserError for a base that was made from another config than the one with the hash
    `config`, and for weights that changed since they were written.
    """
    for name in (WEIGHTS, TOKENIZER, PROVENANCE):
        _require(folder, name)
    made = files.read_json(Path(folder) / PROVENANCE)
    if made.get("config") != config:
        raise UserError(f"{folder}: base checkpoint made from another config", _AGAIN)
    found = files.sha256(Path(folder) / WEIGHTS)
    if made.get("weights") != found:
        raise UserError(f"{Path(folder) / WEIGHTS}: damaged, its checksum differs", _AGAIN)
    return {"base": found, "tokenizer": files.sha256(Path(folder) / TOKENIZER)}


def _require(folder: Path, name: str) -> None:
    if not (Path(folder) / name).exists():
        raise UserError(f"{folder}: no {name}", "Make the base first: lrmoclip base")


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder}: not a readable checkpoint ({reason})", _AGAIN)
