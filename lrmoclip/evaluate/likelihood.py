"""lm-eval's Hugging Face model, with what requests have in common run once.

Choices share their context, and few-shot items of a task share a prefix: each is run once and its
keys and values are kept. Only the tokens that are scored reach the vocabulary projection, which
stays in the weight's dtype, since logits in bfloat16 tie."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import Head, head_of
from lrmoclip.evaluate.internals import Requests, TokensLM

_SHARED = 64  # contexts that agree in so many tokens are worth a forward pass of their own
_TOKENS = 2**14  # whose keys and values a batch may hold, however many contexts it may have
_PROJECTED = 512  # positions projected at a time

Tokens = tuple[int, ...]


@dataclass
class Past:
    """What a batch of B sequences has read: keys and values of n slots, which of them hold a token
    (B, n) bool, and tokens read (B,) int64."""

    cache: object | None
    seen: Tensor
    length: Tensor

    def select(self, rows: list[int]) -> "Past":
        """The sequences `rows`, repeats allowed; self stays as it was."""
        index = torch.tensor(rows, device=self.seen.device)
        cache = copy.copy(self.cache)
        if cache is not None:
            cache.layers = [copy.copy(layer) for layer in cache.layers]
            cache.batch_select_indices(index)
        return Past(cache, self.seen[index], self.length[index])


class SharedContextLM(TokensLM):
    """HFLM with its own log-likelihoods, equal to HFLM's up to rounding.

    Models with windowed or recurrent layers, whose cache does not keep every token, and those
    whose logits are not those of a `heads.Head` are left to HFLM.
    """

    def __init__(self, model, tokenizer, batch_size: int, **settings) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            softmax_dtype="float32",
            **settings,
        )
        self._head = _plain_head(model)

    def likelihoods(
        self, requests: Requests, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As `TokensLM`."""
        if self._head is None:
            return super().likelihoods(requests, disable_tqdm, override_bs)
        items: dict[Tokens, list[tuple[int, Tokens]]] = {}  # by context
        for number, (_, context, continuation) in enumerate(requests):
            surplus = max(0, len(context) + len(continuation) - self.max_length - 1)
            items.setdefault(tuple(context[surplus:]), []).append((number, tuple(continuation)))
        answers: list = [None] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm, desc="likelihoods", mininterval=5)
        with bar, torch.no_grad():
            for family in _families(items):
                prefix = _common(family)
                past = Past(None, torch.ones(1, 0).bool(), torch.zeros(1).long())
                past = Past(None, *(x.to(self.device) for x in (past.seen, past.length)))
                if prefix:
                    _, past = self._read(past, [family[0][:prefix]])
                for batch in _batches(family, items, self.batch_size):
                    for number, answer in self._answers(past, batch, items):
                        answers[number] = answer
                        bar.update()
        return answers

    def _answers(
        self, prefix: Past, contexts: list[Tokens], items: dict
    ) -> Iterator[tuple[int, tuple[float, bool]]]:
        """The answers of a batch of contexts which all begin with what `prefix` has read."""
        read = int(prefix.length)
        hidden, past = self._read(prefix.select([0] * len(contexts)), [c[read:] for c in contexts])
        ends = [len(context) - read - 1 for context in contexts]
        asked = [(row, *item) for row, context in enumerate(contexts) for item in items[context]]
        rows, firsts = [row for row, _, _ in asked], [tokens[0] for _, _, tokens in asked]
        last = hidden[torch.arange(len(ends)), torch.tensor(ends)]  # (B, d)
        found = {
            number: [answer]
            for (_, number, _), answer in zip(asked, self._score(last, rows, firsts), strict=True)
        }
        longer = [(row, number, tokens) for row, number, tokens in asked if len(tokens) > 1]
        longer.sort(key=lambda entry: len(entry[2]))  # similar lengths together: little padding
        for start in range(0, len(longer), self.batch_size):
            part = longer[start : start + self.batch_size]
            for number, answers in self._continued(past, part):
                found[number] += answers
        for number, parts in found.items():
            yield number, (sum(logp for logp, _ in parts), all(greedy for _, greedy in parts))

    def _continued(
        self, past: Past, asked: list[tuple[int, int, Tokens]]
    ) -> Iterator[tuple[int, list[tuple[float, bool]]]]:
        """What follows the first token of each of (row of past, number, tokens)."""
        hidden, _ = self._read(
            past.select([row for row, _, _ in asked]), [tokens[:-1] for _, _, tokens in asked]
        )
        supervised = [(i, j) for i, (_, _, t) in enumerate(asked) for j in range(len(t) - 1)]
        where = torch.tensor(supervised).T  # (2, positions)
        targets = [token for _, _, tokens in asked for token in tokens[1:]]
        scored = iter(self._score(hidden[where[0], where[1]], range(len(targets)), targets))
        for _, number, tokens in asked:
            yield number, [next(scored) for _ in tokens[1:]]

    def _read(self, past: Past, rows: list[Tokens]) -> tuple[Tensor, Past]:
        """The body's output (B, T, d) for the next tokens of each sequence, padded on the right."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])  # (B, T)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        steps = torch.arange(longest, device=self.device)
        seen = torch.cat([past.seen, steps < lengths[:, None]], 1)  # (B, n + T)
        out = self.model.base_model(
            input_ids=ids.to(self.device),
            # Causal attention never looks at padding after the last token, only at that before.
            attention_mask=None if past.seen.all() else seen.long(),
            position_ids=(past.length[:, None] + steps).clamp(max=self.max_length - 1),
            past_key_values=past.cache,
            use_cache=True,
        )
        return out.last_hidden_state, Past(out.past_key_values, seen, past.length + lengths)

    def _score(
        self, hidden: Tensor, rows: list[int] | range, targets: list[int]
    ) -> list[tuple[float, bool]]:
        """Log probability of each of `targets` after the hidden state (n, d) of its row, and
        whether it is the likeliest. `rows` does not decrease."""
        found: list[tuple[float, bool]] = []
        with torch.autocast(self.device.type, enabled=False):
            for start in range(0, len(hidden), _PROJECTED):
                logp = F.log_softmax(
                    self._head.logits(hidden[start : start + _PROJECTED]).float(), -1
                )  # (n', V)
                top = logp.argmax(-1)
                here = [
                    (row - start, target)
                    for row, target in zip(rows, targets, strict=True)
                    if start <= row < start + _PROJECTED
                ]
                index, wanted = torch.tensor(here, device=self.device).T
                greedy = top[index] == wanted
                found += zip(logp[index, wanted].tolist(), greedy.tolist(), strict=True)
        return found


def _plain_head(model) -> Head | None:
    config = model.config.get_text_config()
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return None
    try:
        return head_of(model)
    except UserError:
        return None


def _families(items: dict[Tokens, list]) -> list[list[Tokens]]:
    """Contexts that begin alike, and last all that begin like no other, each longest first."""
    alike: dict[Tokens, list[Tokens]] = {}
    for context in items:
        alike.setdefault(context[:_SHARED], []).append(context)
    families = [family for family in alike.values() if len(family) > 1]
    families.append(
        [context for family in alike.values() if len(family) == 1 for context in family]
    )
    return [sorted(family, key=lambda c: (-len(c), c)) for family in families if family]


def _common(family: list[Tokens]) -> int:
    """Tokens that all contexts share, at least one of each left over; 0 where too few."""
    low, high = min(family), max(family)
    limit = min(map(len, family)) - 1
    shared = next((i for i in range(limit) if low[i] != high[i]), limit)
    return shared if len(family) > 1 and shared >= _SHARED else 0


def _batches(family: list[Tokens], items: dict, size: int) -> Iterator[list[Tokens]]:
    """Batches of at most `size` contexts and, but for a batch of one, `_TOKENS` tokens in the cache
    after the continuations."""
    batch, widest = [], 0
    for context in family:
        longer = [len(continuation) for _, continuation in items[context] if len(continuation) > 1]
        width = max(len(context), len(context) * len(longer) + sum(longer))  # a copy each
        if batch and (len(batch) == size or (len(batch) + 1) * max(widest, width) > _TOKENS):
            yield batch
            batch, widest = [], 0
        batch.append(context)
        widest = max(widest, width)
    yield batch
