"""A domain's splits: validation held out where the source has none, subsets drawn by seed.

A record that is drawn stays drawn when more are asked for, and keeps its place in the source.
"""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from lrmoclip.core.errors import UserError
from lrmoclip.data.leakage import normal_sql

# Of the training records, where neither the source nor the configuration says how many.
_VALIDATION_SHARE = 0.1


@dataclass
class Domain:
    """Records by split; `available` counts them before a subset was drawn, `left_out` by reason.

    Beside what is written, a record has `question` and `prose`, an answer in words: leakage is
    judged on them. databases: the SQLite file of each name.
    """

    splits: dict[str, list[dict]]
    available: dict[str, int]
    left_out: dict[str, dict[str, int]]
    databases: dict[str, Path] = field(default_factory=dict)

    def to_write(self) -> dict[str, list[dict]]:
        """The splits with the fields that data files have."""
        return {
            split: [{k: v for k, v in r.items() if k not in ("question", "prose")} for r in records]
            for split, records in self.splits.items()
        }

    def counts(self) -> dict[str, dict]:
        """`available` and `left_out` of each split, for the manifest."""
        return {
            split: {"available": self.available[split], "left_out": self.left_out[split]}
            for split in self.splits
        }


def assemble(name: str, pools: dict[str, list[dict]], settings: dict, seed: int) -> Domain:
    """Draw the splits of the set `name` from all records of train, test and, if any, validation.

    settings: sizes by split; one left out means all, and a tenth of train for a validation
    split that the source lacks. Raises UserError where fewer records are available.
    """
    pools, settings = dict(pools), {k: v for k, v in settings.items() if v is not None}
    if "validation" not in pools:
        size = settings.get("validation", max(1, round(_VALIDATION_SHARE * len(pools["train"]))))
        pools["train"], pools["validation"] = _hold_out(
            pools["train"], size, Random(f"{seed}-{name}-validation")
        )
    splits = {}
    for split in ("train", "validation", "test"):
        pool = pools[split]
        size = settings.get(split, len(pool))
        if not 0 < size <= len(pool):
            raise UserError(
                f"data.domains.{name}.{split}: {size} records asked for, {len(pool)} available",
                "Set another size, or leave it out for all",
            )
        splits[split] = _in_place(pool, _order(pool, f"{seed}-{name}-{split}")[:size])
    available = {split: len(pools[split]) for split in splits}
    return Domain(splits, available, left_out={split: {} for split in splits})


def _hold_out(pool: list[dict], size: int, dice: Random) -> tuple[list[dict], list[dict]]:
    """(the rest, at least `size` records that have nothing in common with it, if so many are
    there). Questions that are asked once, or of SQL all that one query answers: by question, the
    same query would be trained on and validated with."""
    groups: dict[tuple, list[int]] = {}
    for i, record in enumerate(pool):
        groups.setdefault(_in_common(record), []).append(i)
    if any("database" in record for record in pool):
        held: set[int] = set()
        for key in dice.sample(list(groups), len(groups)):
            if len(held) < size:
                held.update(groups[key])
    else:
        once = [i for group in groups.values() for i in group if len(group) == 1]
        held = set(dice.sample(once, min(size, len(once))))
    rest = [record for i, record in enumerate(pool) if i not in held]
    return rest, _in_place(pool, list(held))


def _in_common(record: dict) -> tuple:
    if "database" in record:
        return record["database"], normal_sql(record["answer"])
    return (record["question"].casefold(),)


def _order(pool: list[dict], seed: str) -> list[int]:
    return Random(seed).sample(range(len(pool)), len(pool))


def _in_place(pool: list[dict], chosen: list[int]) -> list[dict]:
    return [pool[i] for i in sorted(chosen)]
