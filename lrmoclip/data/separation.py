"""Takes what leaks into a test set (`leakage`) out of training."""

from collections import Counter

from lrmoclip.data import leakage
from lrmoclip.data.domain import Domain
from lrmoclip.data.leakage import Leak, Passage

Sets = dict[str, dict[str, list[dict]]]  # records by set and split


def remove_leaks(
    trained: dict[str, Domain], benchmarks: Sets, ngram: int, limit: float
) -> tuple[list[Leak], dict[str, dict[str, int]]]:
    """Take leaking records out of the training splits, count them in `left_out`, and look again.

    Every training split is compared with validation and test of every set. Returns all leaks, and
    by test set and kind the items that leaked before anything was removed. Raises UserError where
    more than the share `limit` of a test set leaks afterwards.
    """
    train = [p for name, domain in trained.items() for p in _passages(name, domain, "train")]
    held_out = ("validation", "test")
    test = [
        passage
        for name, domain in trained.items()
        for split in held_out
        for passage in _passages(name, domain, split)
    ]
    test += [
        leakage.of_text(f"{role}/{split}", document)
        for role, by_split in benchmarks.items()
        for split in held_out
        for document in by_split.get(split, ())
    ]
    common = leakage.common_ngrams(train, ngram)
    leaks = leakage.search(train, test, ngram, common)
    gone = {name: leakage.reasons(leaks, name) for name in trained}
    for name, domain in trained.items():
        kept = [record for record in domain.splits["train"] if record["id"] not in gone[name]]
        domain.splits["train"] = kept
        for kind, count in Counter(gone[name].values()).items():
            domain.left_out["train"][f"leaks by {kind}"] = count

    left = [passage for passage in train if passage.id not in gone[passage.set]]
    remaining = leakage.search(left, test, ngram, common)
    leakage.check(remaining, Counter(item.set for item in test), limit)
    return leaks, leakage.items(leaks)


def _passages(name: str, domain: Domain, split: str) -> list[Passage]:
    """Passages of a split; those of train bear the set's name alone, as leakage.csv has it."""
    label = name if split == "train" else f"{name}/{split}"
    if name == "replay":
        return [leakage.of_text(label, record) for record in domain.splits.get(split, ())]
    return [leakage.of_domain(label, r, domain.databases) for r in domain.splits[split]]
