"""Facts and how they are split by paraphrase: every fact can be asked in three ways, two of which
are training text; the third, another one from fact to fact, is an item of validation or test."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Fact:
    """One fact: `prompts` are its three paraphrases, `pool` the answers that could be meant."""

    key: str
    prompts: tuple[str, str, str]
    answer: str
    pool: tuple[str, ...]


def record(key: str, prompt: str, answer: str, **extra) -> dict:
    return {"id": key, "prompt": prompt, "answer": answer, **extra}


def multiple_choice(key: str, prompt: str, answer: str, pool, dice: Random, **extra) -> dict:
    """A record with four options in random order: the answer and three others of its pool."""
    options = [answer, *dice.sample(sorted(set(pool) - {answer}), 3)]
    dice.shuffle(options)
    return record(key, prompt, answer, choices=options, gold=options.index(answer), **extra)


def training_records(facts: list[Fact]) -> Iterator[dict]:
    """Each fact in the two paraphrases that are not held out."""
    for i, fact in enumerate(facts):
        for template in range(3):
            if template != held_out_template(i):
                yield record(f"{fact.key}-{template}", fact.prompts[template], fact.answer)


def held_out_items(facts: list[Fact], sizes: dict[str, int], dice: Random) -> dict[str, list[dict]]:
    """For each split of `sizes` as many random facts, none in two splits, held-out paraphrases.
    Test comes first, and validation has what the facts that are left allow."""
    order = dice.sample(range(len(facts)), len(facts))
    splits = {}
    for split in sorted(sizes):  # test, validation
        taken, order = order[: sizes[split]], order[sizes[split] :]
        splits[split] = [_item(facts, index, dice) for index in taken]
    return splits


def _item(facts: list[Fact], index: int, dice: Random) -> dict:
    fact, template = facts[index], held_out_template(index)
    key = f"{fact.key}-{template}"
    return multiple_choice(key, fact.prompts[template], fact.answer, fact.pool, dice)


def held_out_template(fact_index: int) -> int:
    return fact_index % 3
