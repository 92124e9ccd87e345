"""TeleQnA (Maatouk et al. 2023, arXiv:2310.15051): 10,000 questions with two to five options."""

from collections import Counter, defaultdict
from random import Random
from string import ascii_uppercase

from lrmoclip.core.errors import UserError
from lrmoclip.data.domain import Domain, assemble
from lrmoclip.data.published.sources import Source

FIELDS = {"id": str, "question": str, "choices": list, "answer": int, "category": str}
# Questions whose answer's text differs from the option that it names: only the source's original
# file shows it, which neither form of the data keeps.
_TEXT_DIFFERS = {f"teleqna-{n:05d}" for n in (683, 3780, 4185, 4956, 6783)}


def collect(source: Source, settings: dict, seed: int) -> Domain:
    """The set `telecom`: flagged questions left out, options shuffled for each item by seed.

    settings: sizes by split, and `style`: "text" (the answer is the option's text, as small models
    can do) or "letter" (options are listed and the answer is a letter). Raises Missing, UserError.
    """
    pools, flagged = _read(source)
    kept = {
        split: [
            _item(r, settings.get("style", "text"), seed) for r in pool if r["id"] not in flagged
        ]
        for split, pool in pools.items()
    }
    domain = assemble("telecom", kept, settings, seed)
    for split, pool in pools.items():
        domain.left_out[split]["flagged"] = len(pool) - len(kept[split])
    return domain


def from_hub(row: dict, number: int) -> dict:
    """The folder's record of a row of netop/TeleQnA. Ids number the source's questions, in whose
    order the hub's rows are taken to be."""
    return {
        "id": f"teleqna-{number:05d}",
        "question": row["question"],
        "choices": row["choices"],
        "answer": row["answer"],
        "category": row["subject"],
    }


def split_ids(rows: list[dict]) -> set[str]:
    """Ids of the test split as the data folder draws it: a fifth of each category, of questions
    whose text occurs once."""
    dice = Random(20240613)
    texts = Counter(row["question"].lower() for row in rows)
    categories = defaultdict(list)
    for row in rows:
        categories[row["category"]].append(row)
    test: set[str] = set()
    for _, members in sorted(categories.items()):
        ids = sorted(row["id"] for row in members if texts[row["question"].lower()] == 1)
        dice.shuffle(ids)
        test.update(ids[: len(members) // 5])
    return test


def flagged_ids(rows: list[dict]) -> set[str]:
    """Ids of questions with fewer than four options, options that recur, or an unclear answer."""
    few_or_twice = {
        row["id"] for row in rows if len(set(row["choices"])) < max(4, len(row["choices"]))
    }
    return few_or_twice | _TEXT_DIFFERS


def _read(source: Source) -> tuple[dict[str, list[dict]], set[str]]:
    """Records of train and test, and the flagged ids: stated by the folder, which the hub's one
    split does not do."""
    source = source.holder("telecom")
    if source.kind == "folder":
        pools = {split: source.records("telecom", split, FIELDS) for split in ("train", "test")}
        return pools, {row["id"] for row in source.records("telecom", "flagged", {"id": str})}
    rows = source.records("telecom", "all", FIELDS, from_hub)
    test = split_ids(rows)
    train = [row for row in rows if row["id"] not in test]
    return {"train": train, "test": [row for row in rows if row["id"] in test]}, flagged_ids(rows)


def _item(row: dict, style: str, seed: int) -> dict:
    if not 0 <= row["answer"] < len(row["choices"]):
        raise UserError(
            f"telecom, record {row['id']}: answer {row['answer']} is none of its options",
            "Copy the data folder again",
        )
    order = list(range(len(row["choices"])))
    Random(f"{seed}-{row['id']}").shuffle(order)
    options = [row["choices"][i] for i in order]
    gold = order.index(row["answer"])
    item = {"id": row["id"], "gold": gold, "question": row["question"], "prose": options[gold]}
    if style == "text":
        prompt = f"Question: {row['question']}\nAnswer:"
        return item | {"prompt": prompt, "answer": options[gold], "choices": options}
    letters = list(ascii_uppercase[: len(options)])
    listed = "".join(f"{a}. {text}\n" for a, text in zip(letters, options, strict=True))
    prompt = f"Question: {row['question']}\n{listed}Answer:"
    return item | {"prompt": prompt, "answer": letters[gold], "choices": letters}
