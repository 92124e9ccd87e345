"""The micro world's tokenizer: one token a word, in the ordinary Hugging Face layout."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lrmoclip.data.micro.words import vocabulary

SPECIAL = ("<pad>", "<eos>", "<unk>")


def build(size: int, context: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of exactly `size` entries for models that read `context` tokens; text
    is split at white space."""
    words = [*SPECIAL, *vocabulary(size - len(SPECIAL))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
