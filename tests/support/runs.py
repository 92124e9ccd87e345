"""Runs on random little models and records: each made anew at every call, the same each time."""

import copy
import tempfile
from pathlib import Path

import torch

from lrmoclip.config.parts import Stage0, Stage1
from lrmoclip.core.store import CandidateStore, StoreWriter
from lrmoclip.data.batches import Encoded
from lrmoclip.methods import Method
from lrmoclip.train.run import Run, TrainingSet, start
from lrmoclip.train.stage0 import collect

SETTINGS = {
    "epochs": 2,  # of 12 records: six steps
    "batch_size": 4,
    "warmup": 0.3,
    "weight_decay": 0.01,
    "betas": [0.9, 0.99],
    "probe_records": 4,
    "probe_every": 2,
}
RESTRICTED = {"objective": {"name": "restricted", "denominator": "own"}}
REFRESH = {"objective": {"name": "restricted", "refresh": True}}
SAMPLED = {"objective": {"name": "restricted", "denominator": "union", "negatives": 3}}
MOCLIP = {"optimizer": {"name": "moclip", "max_angle": 90}}
BOUND = {"base": "b", "tokenizer": "t", "data": "d"}
STORES = tempfile.TemporaryDirectory()  # until the process ends
STAGE0 = Stage0(coverage=0.9, k_min=1, k_max=5, batch_size=8)
LORA = {"adapter": {"name": "lora", "rank": 2, "alpha": 4.0}}
EWC = {"penalty": {"name": "ewc", "strength": 8.0}}


def make_model(vocabulary: int = 50, hidden: int = 16):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=True,
            max_position_embeddings=32,
        )
    )


def make_records(count: int = 12, vocabulary: int = 50, seed: int = 0) -> Encoded:
    dice = torch.Generator().manual_seed(seed)
    ids = [
        torch.cat([torch.randint(2, vocabulary, (4 + i % 3,), generator=dice), torch.tensor([1])])
        for i in range(count)
    ]
    return Encoded(ids, [2 + i % 2 for i in range(count)], pad_id=0, eos_id=1)


def make_source(model, data: Encoded, **changes) -> TrainingSet:
    """changes: of the settings of Stage 0, else STAGE0."""
    folder = Path(tempfile.mkdtemp(dir=STORES.name)) / "store"
    stage0 = Stage0(**{**STAGE0.model_dump(), **changes})
    settings, vocabulary = stage0.model_dump(), model.config.vocab_size
    with StoreWriter(folder, BOUND, vocabulary=vocabulary, settings=settings) as writer:
        collect(model.eval(), data, stage0, writer)
    return TrainingSet(data, CandidateStore.load(folder, BOUND))


def point(**axes) -> Method:
    return Method.model_validate({"label": "under test", **axes})


def make_run(
    model, axes: dict, source: TrainingSet, settings: dict | None = None, seed: int = 7, **more
) -> Run:
    """A run of a copy of the model. axes: of the method; settings: of Stage 1, else SETTINGS."""
    stage1 = Stage1(**{**SETTINGS, **(settings or {})})
    return start(
        copy.deepcopy(model), point(**axes), stage1, lr=1e-2, seed=seed, domain=source, **more
    )
