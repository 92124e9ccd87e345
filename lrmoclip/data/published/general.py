"""The general benchmarks: lm-eval's own documents, drawn by seed from a folder or the hub."""

from collections.abc import Mapping
from operator import itemgetter
from random import Random

from lrmoclip.core.errors import UserError
from lrmoclip.data.published.benchmarks import BENCHMARKS, chance, documents, family_of
from lrmoclip.data.published.replay import replay
from lrmoclip.data.published.sampling import draw
from lrmoclip.data.published.sources import Missing, Source

__all__ = ["chance", "collect", "replay"]

Sets = dict[str, dict[str, list[dict]]]
Counts = dict[str, dict[str, dict]]


def collect(
    source: Source, settings: Mapping[str, Mapping], seed: int
) -> tuple[Sets, dict[str, str], Counts]:
    """(sets, missing, available) of the roles in `settings`.

    settings: for each role the sizes `test` and `validation` (left out: all of its own split) and
    `tasks`, which of lm-eval's variants. sets[role][split] are documents with `id` and `task`;
    split is `test`, `validation`, or `fewshot` where lm-eval's task takes examples from a split
    (MMLU's `dev`, five a subject). missing[role] says in a line why the source has no such set.
    available[role][split] is `{"available", "left_out": {reason: count}}`.

    Subsets are spread over tasks (and MATH's levels) as evenly as their sizes allow, and keep the
    source's order, task by task. Validation items are those of arc_easy's validation split and of
    a quarter of mmlu's and wikitext's, the rest being kept for replay. Where a size asks for them,
    they also come from a quarter of math's train split, and for the other roles, which have one
    split with answers, from the items that the test subset left. Raises UserError for a size that
    the source cannot give.
    """
    sets: Sets = {}
    missing: dict[str, str] = {}
    available: Counts = {}
    for role, wanted in settings.items():
        if role not in BENCHMARKS:
            raise UserError(
                f"data.general: no benchmark {role}", f"Use some of {', '.join(BENCHMARKS)}"
            )
        try:
            sets[role], available[role] = _splits(source, role, wanted, seed)
        except Missing as gap:
            missing[role] = gap.reason
    return sets, missing, available


def _splits(
    source: Source, role: str, wanted: Mapping, seed: int
) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    benchmark, family = BENCHMARKS[role], family_of(role, wanted)
    splits, counts = {}, {}

    def add(split: str, pool: list[dict], left_out: dict[str, int]) -> list[dict]:
        """Draw a split; returns what it left of the pool."""
        size = wanted.get(split, len(pool))
        if not 0 < size <= len(pool):
            raise UserError(
                f"data.general.{role}.{split}: {size} records asked for, {len(pool)} available",
                "Set another size, or leave it out",
            )
        dice = Random(f"{seed}-{role}-{split}")
        chosen = draw(pool, size, dice, *map(itemgetter, benchmark.strata))
        splits[split] = [pool[i] for i in chosen]
        counts[split] = {"available": len(pool), "left_out": left_out}
        return [pool[i] for i in sorted(set(range(len(pool))) - set(chosen))]

    rest = add("test", *documents(source, role, benchmark.test, family))
    if benchmark.validation is None and "validation" in wanted:
        add("validation", rest, {})
    elif benchmark.validation == "validation" or "validation" in wanted:
        add("validation", *documents(source, role, benchmark.validation, family))
    if benchmark.fewshot is not None:
        add("fewshot", *documents(source, role, benchmark.fewshot, family))
    return splits, counts
