"""Base models and trained models: ordinary Hugging Face checkpoints, read without remote code, with
a manifest of their files' digests."""

from pathlib import Path

from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError

KIND = "checkpoint"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"


def folder(path: Path) -> Folder:
    """A checkpoint folder, nothing of it checked yet."""
    return Folder(path, KIND, "lrmoclip base (or train, of a run)")


def load_model(folder: Folder, device: str | None = None):
    """The causal LM of a checkpoint, in evaluation mode on `device`, by default the best there is.

    UserError where a file is not what was written, or the weights are not those of its config.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder.file(WEIGHTS)
    path = folder.whole()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _unreadable(folder, error) from None
    if wrong := [*found["missing_keys"], *found["mismatched_keys"]]:
        # transformers would draw these at random.
        name = wrong[0] if isinstance(wrong[0], str) else wrong[0][0]
        raise UserError(f"{folder.path}: weights that do not fit its config ({name})", folder.hint)
    return model.eval().to(device or best_device())


def best_device() -> str:
    """Where models compute: the GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Folder):
    """The tokenizer of a checkpoint. UserError as `load_model`."""
    from transformers import AutoTokenizer

    folder.file(TOKENIZER)
    path = folder.whole()
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust side raises bare Exceptions
        raise _unreadable(folder, error) from None


def config_of(folder: Folder):
    """The transformers config of a checkpoint. UserError where it has none that is known."""
    from transformers import AutoConfig

    folder.file("config.json")
    try:
        return AutoConfig.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from None


def context(config) -> int:
    """Tokens that a model of this transformers config can read at a time."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else 2**31  # such as state-space models


def check_pair(folder: Folder, model, tokenizer) -> None:
    """Refuse a tokenizer that can name a token for which the model has no row."""
    rows = model.get_input_embeddings().weight.shape[0]
    if (tokens := len(tokenizer)) > rows:
        raise UserError(
            f"{folder.path}: its tokenizer has {tokens} tokens, its model {rows} rows", folder.hint
        )


def save(path: Path, model, tokenizer) -> None:
    """Write model and tokenizer into a draft. UserError for weights that are not finite: a model
    that diverged is not a result."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(
                f"{name}: weights that are not finite, the model diverged",
                "Lower the learning rate",
            )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def of(
    scale: str, base: str, domain: str = "", method: str = "base", seed: int = 0
) -> dict[str, dict]:
    """What a checkpoint's manifest says it is of."""
    return {"of": {"scale": scale, "base": base, "domain": domain, "method": method, "seed": seed}}


def check_of(folder: Folder, *names: str | int) -> None:
    """Refuse a checkpoint that is of something else; names as for `of`. A base has no domain."""
    known, asked = folder.about.get("of", {}), of(*names)["of"]
    if asked["method"] == "base":
        asked |= {"domain": "", "seed": 0}
    for key, value in asked.items():
        if known.get(key) != value:
            raise UserError(
                f"{folder.path}: of the {key} {known.get(key)!r}, not {value!r}",
                "Name the checkpoint that is to be scored",
            )


def identity(folder: Folder, config: str) -> dict[str, str]:
    """Digests of a base model and of its tokenizer, as a candidate store records them.

    Raises UserError for a base that was made from another config than the one with the hash
    `config`, and for files that changed since they were written.
    """
    if folder.about.get("config") != config:
        raise UserError(f"{folder.path}: base checkpoint made from another config", folder.hint)
    names = {"base": WEIGHTS, "tokenizer": TOKENIZER}
    return {key: folder.digest(name) for key, name in names.items()}


def _unreadable(folder: Folder, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{folder.path}: not a readable checkpoint ({reason})", folder.hint)
