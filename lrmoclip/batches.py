"""From records (prompt, answer) to batches in which only the answer and the end of sequence are
supervised. Sequences are padded on the right, where causal attention never looks."""

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """Tokenised records. `ids[i]` int64 (L_i + 1,) with the end of sequence; its first
    `prompt_lengths[i]` tokens are the prompt."""

    ids: list[Tensor]
    prompt_lengths: list[int]
    pad_id: int
    eos_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> Tensor:
        """Supervised positions of each record, int64 (records,)."""
        lengths = torch.tensor([len(ids) for ids in self.ids])
        return lengths - torch.tensor(self.prompt_lengths)

    @property
    def gold(self) -> Tensor:
        """Targets of all supervised positions, record by record, int64 (N,)."""
        pairs = zip(self.ids, self.prompt_lengths, strict=True)
        return torch.cat([ids[start:] for ids, start in pairs])

    @property
    def tokens(self) -> int:
        """Tokens fed to a model in one pass over the records, padding left out."""
        return sum(len(ids) - 1 for ids in self.ids)


@dataclass(frozen=True)
class Batch:
    """`input_ids`, `targets` int64 (B, T); `targets` is the next token or IGNORE."""

    input_ids: Tensor
    targets: Tensor

    @property
    def supervised(self) -> Tensor:
        return self.targets != IGNORE  # (B, T)

    @property
    def gold(self) -> Tensor:
        """Targets of the supervised positions, row by row, int64 (N,)."""
        return self.targets[self.supervised]

    def to(self, device) -> "Batch":
        return Batch(self.input_ids.to(device), self.targets.to(device))


def encode(records: list[dict], tokenizer) -> Encoded:
    """Tokenise `prompt + " " + answer + end of sequence`."""
    prompts = tokenizer([r["prompt"] for r in records], add_special_tokens=False)["input_ids"]
    texts = [f"{r['prompt']} {r['answer']}" for r in records]
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    eos = tokenizer.eos_token_id
    return Encoded(
        ids=[torch.tensor([*ids, eos]) for ids in whole],
        prompt_lengths=[len(p) for p in prompts],
        pad_id=tokenizer.pad_token_id,
        eos_id=eos,
    )


def collate(data: Encoded, indices: list[int]) -> Batch:
    """The records `indices`, in that order, as one batch."""
    longest = max(len(data.ids[i]) for i in indices) - 1
    input_ids = torch.full((len(indices), longest), data.pad_id)  # (B, T)
    targets = torch.full((len(indices), longest), IGNORE)  # (B, T)
    for row, i in enumerate(indices):
        ids, start = data.ids[i], data.prompt_lengths[i]
        input_ids[row, : len(ids) - 1] = ids[:-1]
        targets[row, start - 1 : len(ids) - 1] = ids[start:]
    return Batch(input_ids, targets)
