"""General text for replay and for EWC's Fisher: what a base model is likely to have seen in kind,
in equal parts from the training and validation splits of four sets, and never a test item."""

import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from random import Random

from lrmoclip.core.errors import UserError
from lrmoclip.data.published.benchmarks import BENCHMARKS, converted, lent, records
from lrmoclip.data.published.sampling import draw
from lrmoclip.data.published.sources import Missing, Source

HELD_OUT = 64  # records that nothing trains on, where so many are left
_LONGEST = 90  # words of a paragraph, about 120 tokens
_SHORTEST = 20
_OPENING = 8  # words of a paragraph that make its prompt
_LONGEST_ITEM = 500  # characters of a question and its answer: 110 tokens of prose, 200 of TeX

Item = Callable[[dict], tuple[str, str]]  # a record's prompt and answer


def replay(source: Source, count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """`count` records `id, prompt, answer` in equal parts, where one is used up the others fill up;
    and at most HELD_OUT more of their kind, on which is measured how far a model has moved.

    Passages of WikiText-2, questions of ARC-Easy and MMLU and problems of MATH, none of them long:
    from train splits, or where there is none (MMLU, and WikiText in a folder) from the three
    quarters of the validation split that `general.collect` leaves. A question that is also a test
    question, up to case and punctuation, is left out, and a set that the source lacks as well.
    Raises UserError where no more than `count` records are there.
    """
    pool = []
    for part in (_wikitext, _arc, _mmlu, _math):
        try:
            pool += [record | {"part": part.__name__} for record in part(source)]
        except Missing:
            continue
    if not 0 < count < len(pool):
        raise UserError(
            f"data.replay: {count} records asked for, {len(pool)} available, of which some must be "
            "left to measure on",
            "Set another size",
        )

    def drawn(size: int) -> set[int]:
        return set(draw(pool, size, Random(f"{seed}-replay-train"), itemgetter("part")))

    chosen = drawn(count)
    held_out = drawn(min(count + HELD_OUT, len(pool))) - chosen
    keys = ("id", "prompt", "answer")
    trained, held = (
        [{key: pool[i][key] for key in keys} for i in sorted(part)] for part in (chosen, held_out)
    )
    return trained, held


def _wikitext(source: Source) -> Iterator[dict]:
    """Passages as lm-eval detokenises them, cut every `_LONGEST` words."""
    from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer

    try:
        articles = records(source, "wikitext", "train")
    except Missing:
        articles = _kept(source, "wikitext")
    for article in articles:
        for number, words in enumerate(_pieces(article["text"], wikitext_detokenizer)):
            yield {
                "id": f"{article['id']}-{number:03d}",
                "prompt": " ".join(words[:_OPENING]),
                "answer": " ".join(words[_OPENING:]),
            }


def _pieces(text: str, detokenize: Callable[[dict], str]) -> Iterator[list[str]]:
    for passage in _passages(text):
        # The detokenizer joins a full stop to its sentence only where something follows.
        words = detokenize({"page": f"{passage} \n"}).split()
        for start in range(0, len(words), _LONGEST):
            if len(words) - start >= _SHORTEST:
                yield words[start : start + _LONGEST]


def _passages(text: str) -> Iterator[str]:
    """Runs of whole sentences without `<unk>`, which stands for a rare word in tokenised text and
    would be learnt as a word; headings are skipped."""
    for line in map(str.strip, text.split("\n")):
        if line and not line.startswith("="):
            sentences = re.split(r"(?<= \.) ", line)
            run: list[str] = []
            for sentence in [*sentences, "<unk>"]:
                if "<unk>" not in sentence:
                    run.append(sentence)
                elif run:
                    yield " ".join(run)
                    run = []


def _arc(source: Source) -> Iterator[dict]:
    return _unseen(source, "arc_easy", records(source, "arc_easy", "train"), _arc_item)


def _arc_item(record: dict) -> tuple[str, str]:
    return f"Question: {record['question']}\nAnswer:", record["choices"][record["answer"]]


def _mmlu(source: Source) -> Iterator[dict]:
    return _unseen(source, "mmlu", _kept(source, "mmlu"), _mmlu_item)


def _mmlu_item(record: dict) -> tuple[str, str]:
    options = "".join(f"{a}. {text}\n" for a, text in zip("ABCD", record["choices"], strict=True))
    return f"{record['question'].strip()}\n{options}Answer:", "ABCD"[record["answer"]]


def _math(source: Source) -> Iterator[dict]:
    return _unseen(source, "math", _kept(source, "math"), _math_item)


def _math_item(record: dict) -> tuple[str, str]:
    return f"Problem: {record['problem']}\nSolution:", record["solution"]


def _kept(source: Source, role: str) -> list[dict]:
    """What validation documents leave of the split that they come from."""
    return lent(records(source, role, BENCHMARKS[role].validation))[1]


def _unseen(source: Source, role: str, found: list[dict], item: Item) -> Iterator[dict]:
    """Short items whose prompts are no prompts of the test split."""
    tested = {_plain(converted(role, record, item)[0]) for record in records(source, role, "test")}
    for record in found:
        prompt, answer = converted(role, record, item)
        short = len(prompt) + len(answer) <= _LONGEST_ITEM
        if short and _plain(prompt) not in tested:
            yield {"id": record["id"], "prompt": prompt, "answer": answer}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
