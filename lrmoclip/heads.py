"""The vocabulary head of a Hugging Face causal LM (`lrmoclip.core.heads`)."""

from lrmoclip.core.heads import Head, ScaleAndCap, head_of, supervised_hidden, supervised_logits

__all__ = ["Head", "ScaleAndCap", "head_of", "supervised_hidden", "supervised_logits"]
