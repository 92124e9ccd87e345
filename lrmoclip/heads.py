"""Reaches the vocabulary projection of a Hugging Face causal LM through its root `forward`.

A pre-hook on the output embedding decides which positions are projected, so that hooks of DDP and
FSDP fire and whatever the model does to its logits stays in force."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from lrmoclip.errors import UserError

# Families that change their logits after the projection; Stage 1 would miss that change.
_LOGIT_MAPS = (
    *("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"),
    *("logits_scaling", "logit_scale", "lm_head_multiplier", "mup_width_multiplier"),
)


def supervised_logits(model: nn.Module, input_ids: Tensor, supervised: Tensor) -> Tensor:
    """Logits (N, V) of the N positions where `supervised` (B, T) is true, and of no other."""
    with _head_input(model, lambda hidden: hidden[supervised]):
        return model(input_ids=input_ids, use_cache=False).logits


def supervised_hidden(model: nn.Module, input_ids: Tensor, supervised: Tensor) -> Tensor:
    """Inputs (N, d) of the vocabulary projection at the supervised positions, unprojected."""
    kept: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        kept.append(hidden[supervised])
        return kept[0][:0]

    with _head_input(model, keep):
        model(input_ids=input_ids, use_cache=False)
    return kept[0]


def head_parameters(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (V, d) and bias (V,) or None of the vocabulary projection.

    Raises UserError for a model that has no linear head or maps its logits afterwards.
    """
    name = type(model).__name__
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(f"{name}: no linear vocabulary projection", "Use a causal language model")
    for key in _LOGIT_MAPS:
        if getattr(model.config.get_text_config(), key, None) not in (None, 1.0):
            raise UserError(
                f"{name}: maps its logits ({key}), which the restricted loss would miss",
                "Use a family that does not, such as Qwen3 or Llama",
            )
    return head.weight, head.bias


@contextmanager
def _head_input(model: nn.Module, change) -> Iterator[None]:
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        hook.remove()
