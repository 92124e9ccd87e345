"""Methods, models by their architecture, and records that the tests of cost share."""

from pathlib import Path

import torch

from lrmoclip.config.parts import Wheel
from lrmoclip.data.batches import Encoded
from lrmoclip.methods import Method
from lrmoclip.models.shapes import Shape, shape_of
from tests.support import ROOT
from tests.support.made import as_checkpoint

CONFIGS = ROOT / "workflow" / "config"
DEVICES = CONFIGS / "devices.yaml"
REFERENCE = ROOT / "results" / "reference"
GB = 1e9

FULL = Method(label="full")
EWC = Method(label="EWC", penalty={"name": "ewc", "strength": 1.0})
REPLAY = Method(label="replay", replay=0.5)
LORA = Method(label="LoRA", adapter={"name": "lora", "rank": 4, "alpha": 8})
RESTRICTED = Method(label="restricted", objective={"name": "restricted"})

SMALL = {
    "vocab_size": 2048, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 3,
    "num_hidden_layers": 3, "tie_word_embeddings": True,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 1, "head_dim": 32}
FAMILIES = {
    "qwen3": {**GROUPED, "model_type": "qwen3"},
    "untied": {**GROUPED, "model_type": "qwen3", "tie_word_embeddings": False},
    "llama": {**GROUPED, "model_type": "llama"},
    "gpt_neox": {**SMALL, "model_type": "gpt_neox"},
}
SMOLLM2 = {  # as its config.json says
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_4B = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "tie_word_embeddings": True,
}  # fmt: skip


def shape(architecture: dict) -> Shape:
    spec = Wheel(wheel="w", version="1", sha256="0" * 64, architecture=architecture)
    return shape_of(Path("a.yaml"), "base", spec)


def build(architecture: dict):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture))


def records(vocabulary: int, count: int, tokens: int, share: float) -> Encoded:
    """Random records of `tokens` inputs each, the last `share` of them supervised."""
    dice = torch.Generator().manual_seed(0)
    ids = list(torch.randint(2, vocabulary, (count, tokens + 1), generator=dice))
    prompt = tokens + 1 - round(share * tokens)
    return Encoded(ids, [prompt] * count, pad_id=0, eos_id=1)


def write_config(folder: Path, architecture: dict) -> Path:
    """A checkpoint without weights."""
    from transformers import AutoConfig

    AutoConfig.for_model(**architecture).save_pretrained(folder)
    as_checkpoint(folder)
    return folder
