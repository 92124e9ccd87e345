"""What a causal LM is fed. Padding on the left is served with an attention mask and refused without
one: every token after it would see it, and be counted from it."""

from inspect import signature

import torch
from torch import Tensor, nn

from lrmoclip.core.arguments import check_tensor
from lrmoclip.core.errors import UserError


def model_inputs(
    owner: nn.Module, input_ids: Tensor, supervised: Tensor, attention_mask: Tensor | None
) -> dict[str, Tensor]:
    """Arguments of the model's forward, after a check of what they are made from.

    input_ids (B, T) int64; supervised (B, T) bool; attention_mask (B, T) of 0 at padding and 1
    elsewhere, or None where padding stands on the right alone, if anywhere.

    TypeError, ValueError: what does not fit. UserError: a mask that the model does not take, or a
    supervised row that begins with a padding token and no mask to say whether it is one.
    """
    check_tensor("input_ids", input_ids)
    check_tensor("supervised", supervised)
    shape = tuple(input_ids.shape)
    if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids must be int64 (B, T), got {input_ids.dtype} {shape}")
    if supervised.shape != shape or supervised.dtype != torch.bool:
        got = f"{supervised.dtype} {tuple(supervised.shape)}"
        raise ValueError(f"supervised must be bool {shape} as input_ids, got {got}")
    if attention_mask is None:
        _refuse_left_padding(owner, input_ids, supervised)
        return {"input_ids": input_ids}
    check_tensor("attention_mask", attention_mask)
    mask = attention_mask.long()
    if mask.shape != shape or (mask != attention_mask).any() or ((mask < 0) | (mask > 1)).any():
        raise ValueError(f"attention_mask must be {shape} as input_ids, 0 at padding, 1 elsewhere")
    if (supervised.to(mask.device) & (mask == 0)).any():
        raise ValueError("attention_mask must not be 0 at supervised positions")
    taken = signature(owner.forward).parameters
    if "attention_mask" not in taken:  # some families swallow keywords that they do not know
        raise UserError(f"{type(owner).__name__}: takes no attention_mask", "Pad on the right")
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    if "position_ids" in taken:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)  # as generate() counts them
    return inputs


def padding_tokens(owner: nn.Module) -> list[int]:
    """What a tokenizer of this model pads with, as far as its config knows."""
    config = owner.config.get_text_config()
    for name in ("pad_token_id", "eos_token_id"):
        if (token := getattr(config, name, None)) is not None:
            return token if isinstance(token, list) else [token]
    return []


def _refuse_left_padding(owner: nn.Module, input_ids: Tensor, supervised: Tensor) -> None:
    known = input_ids.new_tensor(padding_tokens(owner))
    padded = torch.isin(input_ids[:, :1], known) & supervised.to(input_ids.device)  # (B, T)
    if padded.any():
        row = int(padded.nonzero()[0, 0])
        raise UserError(
            f"input_ids: row {row} begins with the padding token {int(input_ids[row, 0])}, which "
            "the model would read as text",
            "Pad on the right, or pass attention_mask, 0 at padding and 1 elsewhere",
        )
