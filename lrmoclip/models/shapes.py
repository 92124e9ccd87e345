"""Counts of a model's weights, which costs, memory and plans are computed from. None is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from lrmoclip.config.parts import Base, Folder, Scratch
from lrmoclip.core.errors import UserError
from lrmoclip.models import checkpoints

FLOAT = 4  # bytes of a weight, a gradient and a moment: all float32
WORKING = {"float32": 4, "bfloat16": 2}  # bytes of what a layer computes with


@dataclass(frozen=True)
class Shape:
    """Counts of weights, tied ones once: all, the body's (without embeddings), the head's (V x d),
    of the body's linear layers, of the largest layer; and what a layer is made of."""

    parameters: int
    body: int
    head: int
    d: int
    vocabulary: int
    layers: int
    q: int  # heads times head size
    kv: int
    f: int  # width of the MLP
    projections: int
    low_rank: int  # inputs plus outputs of the linear layers: LoRA has rank times as many
    block: int
    gated: bool
    normalised_heads: bool

    def activations(self, precision: str) -> float:
        """Bytes a token and layer that the backward pass finds stored, after Korthikanti et al.
        2022 (arXiv 2205.05198), counted anew for transformers' blocks without dropout and with
        fused attention; w bytes of what is computed with:

            gated MLP    4 d 4 + n d w + 2 (q + kv) w + 4 f w; (q + kv) (4 + w) more, heads normed
            plain MLP    d 4 + 2 d w + 7 q w + 2 f w (GPT-NeoX: q, k and v are views of one tensor)

        n = 2 in float32, 5 under autocast, which keeps a cast copy for each projection.
        """
        w = WORKING[precision]
        if not self.gated:
            return FLOAT * self.d + w * (2 * self.d + 7 * self.q + 2 * self.f)
        heads, copies = self.q + self.kv, 2 if w == FLOAT else 5
        normed = (FLOAT + w) * heads if self.normalised_heads else 0
        return 4 * FLOAT * self.d + w * (copies * self.d + 2 * heads + 4 * self.f) + normed


def shape_of(path: Path, base: str, spec: Base) -> Shape:
    """The shape of a base as the scale's config at `path` describes it (`bases.<base>`): trained
    from scratch, in a folder, or with an `architecture`, the entries of its transformers config.

    Raises UserError where neither is there, or transformers does not know the architecture.
    """
    place = f"{path}: bases.{base}"
    if isinstance(spec, Scratch):
        return _from_scratch(spec)
    if isinstance(spec, Folder):
        return _of_folder(path.parent / spec.path)
    if spec.architecture is None:
        raise UserError(
            f"{place}: no architecture, and no checkpoint yet",
            "Add the key architecture, or make the base first",
        )
    try:
        return _of_config(tuple(sorted(spec.architecture.model_dump().items())))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{place}.architecture: {' '.join(str(error).split())[:200]}") from None


@lru_cache
def shape_of_checkpoint(path: Path) -> Shape:
    """The shape of a checkpoint folder, from its config.json. UserError where that is none of a
    causal LM."""
    from transformers import AutoModelForCausalLM

    folder = checkpoints.folder(path)
    said = checkpoints.config_of(folder)
    try:
        return _on_meta(lambda: AutoModelForCausalLM.from_config(said))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        words = f"{path}: not a checkpoint of a causal LM ({reason})"
        raise UserError(words, folder.hint) from None


@lru_cache
def _of_folder(path: Path) -> Shape:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        said = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        return _on_meta(lambda: AutoModelForCausalLM.from_config(said))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from None


@lru_cache
def _of_config(entries: tuple) -> Shape:
    from transformers import AutoConfig, AutoModelForCausalLM

    said = AutoConfig.for_model(**dict(entries))
    return _on_meta(lambda: AutoModelForCausalLM.from_config(said))


@lru_cache
def _from_scratch(spec: Scratch) -> Shape:
    from lrmoclip.models.scratch import new_model

    tokens = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    return _on_meta(lambda: new_model(spec, tokens))


def _on_meta(build: Callable) -> Shape:
    import torch

    with torch.device("meta"), torch.random.fork_rng():
        return shape_of_model(build())


def shape_of_model(model) -> Shape:
    """The shape of a causal LM of transformers."""
    import torch

    said, head = model.config.get_text_config(), model.get_output_embeddings()
    embedding = model.get_input_embeddings().weight
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    heads, d = said.num_attention_heads, head.weight.shape[1]
    size = getattr(said, "head_dim", None) or d // heads
    sizes: dict[str, int] = {}
    for name, parameter in model.base_model.named_parameters():
        if name.startswith("layers."):
            layer = name.split(".")[1]
            sizes[layer] = sizes.get(layer, 0) + parameter.numel()
    names = [name for name, _ in model.named_parameters()]
    everything = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    tied = head.weight is embedding
    return Shape(
        parameters=everything,
        body=everything - head.weight.numel() - (0 if tied else embedding.numel()),
        head=head.weight.numel(),
        d=d,
        vocabulary=head.weight.shape[0],
        layers=said.num_hidden_layers,
        q=heads * size,
        kv=(getattr(said, "num_key_value_heads", None) or heads) * size,
        f=said.intermediate_size,
        projections=sum(m.weight.numel() for m in linear),
        low_rank=sum(m.in_features + m.out_features for m in linear),
        block=max(sizes.values()),
        gated=any("gate_proj" in name for name in names),
        normalised_heads=any("q_norm" in name for name in names),
    )
