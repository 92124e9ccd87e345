"""Base models that are pretrained here, on the micro world's text: transformers' own class, tied
embeddings, the loss on answers only."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lrmoclip.config.parts import CONTEXT, Scratch
from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import supervised_logits
from lrmoclip.data import records
from lrmoclip.data.batches import Encoded, collate, encode
from lrmoclip.data.micro import tokenizer as words
from lrmoclip.data.order import indices

# Each family with what it calls things; what it leaves out has transformers' default.
FAMILIES = {
    "qwen3": ("Qwen3Config", {"num_key_value_heads": "heads", "head_dim": "width"}),
    "llama": ("LlamaConfig", {"num_key_value_heads": "heads"}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": "heads", "head_dim": "width"}),
    "gpt_neox": ("GPTNeoXConfig", {}),
}


def make(spec: Scratch, data: Path):
    """(model, tokenizer, facts) of a base trained on the data folder's pretraining text."""
    tokenizer = words.build(spec.vocabulary, CONTEXT)
    model = new_model(spec, tokenizer)
    path = records.folder(data).file(records.split_of("pretraining", "train"))
    text = encode(records.read(path, repeats=True), tokenizer, context=CONTEXT)
    losses = pretrain(model, text, spec)
    return model, tokenizer, {"seed": spec.seed, "last_loss": losses[-1]}


def new_model(spec: Scratch, tokenizer):
    """A randomly initialised model of a family, by an entry of the scale's `bases`.

    Gemma multiplies its embeddings by sqrt(d) and its norms' weights start at zero; GPT-NeoX has
    biases, layer norms, attention and MLP in parallel, and turns a quarter of each head.
    """
    import transformers

    torch.manual_seed(spec.seed)
    name, own = FAMILIES[spec.family]
    shape = {"heads": spec.heads, "width": spec.hidden // spec.heads}
    config = getattr(transformers, name)(
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        max_position_embeddings=CONTEXT,
        # Contexts are short: with the usual 10,000 most pairs of a head of 32 would hardly turn.
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **{key: shape[value] for key, value in own.items()},
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def pretrain(model, data: Encoded, spec: Scratch) -> list[float]:
    """Train in place with AdamW, a short warm-up and a cosine fall to 5 %; returns the losses."""
    steps, lr, warmup = spec.steps, spec.lr, max(1, spec.steps // 15)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    order = indices(len(data), spec.batch_size, spec.seed)
    losses = []
    model.train()
    for step in tqdm(range(steps), desc="pretraining", mininterval=5):
        done = max(0.0, (step - warmup) / max(1, steps - warmup))
        cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / warmup) * cosine
        losses.append(_accumulate(model, data, next(order)))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"pretraining: the loss is {losses[-1]} at step {step}",
                "Lower the base's lr in the scale's config",
            )
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return losses


def _accumulate(model, data: Encoded, chosen: list[int]) -> float:
    """Gradients of one batch, its short two thirds and its long third in turn to save padding."""
    chosen = sorted(chosen, key=lambda i: len(data.ids[i]))
    cut = 2 * len(chosen) // 3
    total = sum(len(data.ids[i]) - data.prompt_lengths[i] for i in chosen)
    loss = 0.0
    for part in filter(None, (chosen[:cut], chosen[cut:])):
        batch = collate(data, part)
        logits = supervised_logits(model, batch.input_ids, batch.supervised)
        share = F.cross_entropy(logits, batch.gold, reduction="sum") / total
        share.backward()
        loss += share.item()
    return loss
