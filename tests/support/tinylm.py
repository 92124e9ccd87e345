"""Small random language models and a tokenizer for them, for texts written in the tests."""

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = 300
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    **{"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 0},
}


def byte_tokenizer(beginning: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE as SmolLM2 has it: a space belongs to the word after it, padding is the end
    of sequence, digits stand alone. beginning: also put a token before each text, as Gemma's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {byte: i for i, byte in enumerate(alphabet, start=1)}
    merges = [("Ġ", "A"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("e", "r"), ("A", "n")]
    vocabulary |= {a + b: len(vocabulary) + i for i, (a, b) in enumerate(merges)}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    backend.decoder = decoders.ByteLevel()
    first = "<begin>" if beginning else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<end>", bos_token=first
    )
    if beginning:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[("<begin>", tokenizer.bos_token_id)]
        )
    return tokenizer


def random_model(family: str = "Llama", **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SHAPE | changes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model
