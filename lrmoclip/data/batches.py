"""From records (prompt, answer) to batches in which only the answer and the end of sequence are
supervised. Sequences are padded on the right, where causal attention never looks."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lrmoclip.core.errors import UserError

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

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each record that are fed to a model, padding left out."""
        return [len(ids) - 1 for ids in self.ids]

    @cached_property
    def supervised(self) -> Tensor:
        """Supervised positions of each record, int64 (records,)."""
        return 1 + torch.tensor(self.lengths) - torch.tensor(self.prompt_lengths)

    @property
    def gold(self) -> Tensor:
        """Targets of all supervised positions, record by record, int64 (N,)."""
        pairs = zip(self.ids, self.prompt_lengths, strict=True)
        return torch.cat([ids[start:] for ids, start in pairs])

    @property
    def tokens(self) -> int:
        """Tokens fed to a model in one pass over the records, padding left out."""
        return sum(self.lengths)


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


def encode(
    records: list[dict], tokenizer, chat: bool = False, context: int | None = None
) -> Encoded:
    """Tokenise each record's framed prompt, its answer and the end of sequence; what the tokenizer
    puts before a text (`before`) stands before each, as lm-eval has it.

    chat: see `framed`. context: tokens that the model can read. UserError where a chat template is
    asked for that the tokenizer lacks, and for a record beyond the context.
    """
    prompts = framed([r["prompt"] for r in records], tokenizer, chat)
    head = [] if chat and begins(prompts, tokenizer) else before(tokenizer)
    first = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answers = [r["answer"] for r in records]
    if chat:  # the model is handed these tokens: none may merge with the answer's
        answers = tokenizer(answers, add_special_tokens=False)["input_ids"]
        whole = [before + after for before, after in zip(first, answers, strict=True)]
    else:
        texts = [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
        whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    eos, whole = tokenizer.eos_token_id, [[*head, *ids] for ids in whole]
    for record, ids in zip(records, whole, strict=True):
        if context is not None and len(ids) > context:
            raise UserError(
                f"record {record['id']}: {len(ids)} tokens, the model reads {context}",
                "Shorten it, or leave it out of the data",
            )
    return Encoded(
        ids=[torch.tensor([*ids, eos]) for ids in whole],
        prompt_lengths=[len(head) + len(p) for p in first],
        pad_id=eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        eos_id=eos,
    )


def before(tokenizer) -> list[int]:
    """The ids that a tokenizer puts before a text, such as the beginning of sequence."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    marked = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
    return marked[: next(starts, 0)]


def begins(prompts: list[str], tokenizer) -> bool:
    """Whether a chat template has written the beginning of sequence already."""
    first = tokenizer.bos_token
    return bool(first and prompts) and prompts[0].startswith(first)


def framed(prompts: list[str], tokenizer, chat: bool = False) -> list[str]:
    """What a model reads before it answers.

    Plain, that is the prompt, and a space stands before the answer. With `chat` it is the prompt as
    a user's only message in the tokenizer's chat template, up to where the answer begins at once:
    a template that knows of thinking leaves it out.
    """
    if not chat:
        return prompts
    if not tokenizer.chat_template:
        raise UserError(
            f"{tokenizer.name_or_path}: its tokenizer has no chat template",
            "Set prompting.chat_template: false",
        )
    return tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
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
