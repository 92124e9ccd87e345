"""From the records of runs to the tables of a scale. Intervals come from `report.statistics`, and
which general benchmarks count from `report.counted`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lrmoclip.config import Scale
from lrmoclip.core import artefacts
from lrmoclip.core.errors import UserError
from lrmoclip.methods import REFERENCE
from lrmoclip.report.counted import Screened, counted, resolution
from lrmoclip.report.kinds import SAMPLES
from lrmoclip.report.scored import KEYS, Scored
from lrmoclip.report.statistics import Interval, mean_interval

ROLES = ["mmlu", "bbh", "gpqa", "math"]  # those of the paper, a column each in table 1
MEASURED, PREDICTED = "measured", "predicted"  # a row's status: of runs, or of a cost model
TABLE1 = [
    *KEYS,
    "seeds",
    *("domain_score", "domain_score_ci", "domain_exact"),
    *ROLES,
    *("general", "general_ci", "general_tasks", "forgetting", "forgetting_ci"),
    *("loss_spikes", "gold_in_set", "outside_mass", "device_hours", "cost_ratio"),
    *("train_records", "test_items", "resolution", "status", "domain_chance"),
]
REGIMES = [
    *KEYS,
    "seeds",
    *("gold_in_set", "gold_in_set_eos", "set_size_mean", "outside_mass_start", "outside_mass"),
]
# Every column of numbers, with its decimals: files are the same to the byte, and no "-0.00".
DECIMALS = {
    **dict.fromkeys(["domain_score", "domain_score_ci", "domain_exact", *ROLES], 2),
    **dict.fromkeys(["general", "general_ci", "forgetting", "forgetting_ci"], 2),
    **{"loss_spikes": 2, "gold_in_set": 2, "outside_mass": 4, "device_hours": 6, "cost_ratio": 3},
    **{"train_records": 0, "test_items": 0, "resolution": 2, "domain_chance": 2},
    **{"gold_in_set_eos": 2, "set_size_mean": 2, "outside_mass_start": 4},  # regimes.csv
    **{"n": 0, "chance": 2, "base_score": 2, "base_ci": 2, "p": 6},  # general.csv
}
TEXTS = {"general_tasks", "note"}  # columns in which an empty cell is an empty text
NOT_TRAINING = ["evaluation", "probe"]  # stages of costs.csv that no training needs


def table1(
    runs: Iterable[Scored],
    costs: pd.DataFrame,
    scale: Scale,
    sizes: Mapping[str, Mapping] | None = None,
) -> pd.DataFrame:
    """One row per scale, base, domain and method of the runs.

    costs: the frame of `costs.csv`. sizes: by domain, what `data.records.sizes` found. `general`
    and `forgetting` average over the roles on which the base is above chance; columns of other
    roles have the base's score in its own row alone. The base's row comes first, then the methods
    that the scale runs, in their order, then others that it knows. Cells that do not apply are NaN;
    numbers are rounded as printed.

    Raises UserError where a measurement or the base is missing, and where items do not pair with
    the base's.
    """
    hours, sizes = _hours(costs), sizes or {}
    rows = []
    groups = _grouped(in_order(runs, scale))
    for key, group in groups.items():
        if (base := groups.get((*key[:3], "base"))) is None:
            place = "/".join(key[:3])
            raise UserError(f"No evaluation of the base model in {place}", "Evaluate it first.")
        row = _scores(group, base, scale) | _training(group, hours, sizes.get(key[2], {}))
        rows.append(dict(zip(KEYS, key, strict=True)) | row)
    table = pd.DataFrame(rows, columns=TABLE1)

    group_keys = [table[key] for key in KEYS[:3]]
    full = table["device_hours"].where(table["method"] == REFERENCE).groupby(group_keys)
    table["cost_ratio"] = table["device_hours"] / full.transform("max")
    return _rounded(table)


def regimes(runs: Iterable[Scored]) -> pd.DataFrame:
    """`regimes.csv`: what the sets of each method that has sets hold, means over its seeds.

    gold_in_set and gold_in_set_eos (end-of-sequence positions alone) in percent, before gold is
    forced in; outside_mass_start and outside_mass: probability outside the sets on the probe batch
    before and after training.
    """
    with_sets = [run for run in runs if run.record.get("gold_in_set") is not None]
    rows = []
    for key, group in _grouped(sorted(with_sets, key=lambda run: (run.key, run.seed))).items():
        records = [run.record for run in group]
        means = {name: _known_mean(records, name) for name in REGIMES[len(KEYS) + 1 :]}
        means |= {name: 100 * means[name] for name in ("gold_in_set", "gold_in_set_eos")}
        rows.append(dict(zip(KEYS, key, strict=True)) | {"seeds": len(group)} | means)
    return _rounded(pd.DataFrame(rows, columns=REGIMES))


def in_order(runs: Iterable[Scored], scale: Scale) -> list[Scored]:
    """Runs by base and domain; the base first, then methods by their place in the scale, others by
    name; seeds in order."""
    methods = dict.fromkeys(["base", *scale.methods, *scale.points])
    place = {method: number for number, method in enumerate(methods)}

    def order(run: Scored) -> tuple:
        *head, method = run.key
        return (*head, place.get(method, len(place)), method, run.seed)

    return sorted(runs, key=order)


def _grouped(runs: Iterable[Scored]) -> dict[tuple[str, str, str, str], list[Scored]]:
    groups: dict[tuple, list[Scored]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    return groups


def gather(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several scales' table 1 in one. Raises UserError if they overlap."""
    rows = [row for table in tables for row in table.to_dict("records")]
    gathered = pd.DataFrame(rows, columns=TABLE1)
    if (repeated := gathered.duplicated(KEYS)).any():
        first = "/".join(gathered.loc[repeated.idxmax(), KEYS])
        raise UserError(f"Table 1 has two rows for {first}", "Give each scale once.")
    return gathered


def to_csv(table: pd.DataFrame) -> str:
    """The text of a table's file: numbers with fixed decimals, empty where NaN."""
    text = table.copy()
    for column in DECIMALS.keys() & set(table.columns):
        text[column] = [number(value, DECIMALS[column]) for value in table[column]]
    return text.to_csv(index=False, lineterminator="\n")


def read(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table from its file, its bytes those that were written where a JSON beside it lists them.

    UserError for one that can't be read, lacks one of `columns`, or has text for a number.
    """
    again = "Name a table of that kind, or make it again"
    try:
        table = pd.read_csv(artefacts.unchanged(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table ({error})", again) from None
    if missing := [name for name in columns if name not in table.columns]:
        raise UserError(f"{path}: another kind of table, it has no column {missing[0]}", again)
    for name in DECIMALS.keys() & set(table.columns):
        if len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            raise UserError(f"{path}: column {name} has other things than numbers", again)
    for name in TEXTS & set(table.columns):
        table[name] = table[name].astype(object).fillna("")
    return table


def read_table1(path: Path) -> pd.DataFrame:
    """A table 1. UserError as `read`, and for one without a row."""
    table = read(path, TABLE1)
    if table.empty:
        raise UserError(f"{path}: no rows", "Make it again")
    return table


def _scores(group: list[Scored], base: list[Scored], scale: Scale) -> dict:
    """What one method scored: `group` are its seeds, `base` the base model's."""
    first = group[0]
    domain = scale.domain(first.key[2])
    score = (domain.task, domain.metric)
    row = {"seeds": len(group), "status": MEASURED, "domain_score": _percent(group, score)}
    row["domain_score_ci"] = _interval([_matrix(group, score)]).half_width
    if domain.exact:
        row["domain_exact"] = _percent(group, (domain.task, domain.exact))
    row |= {"test_items": first.items[score], "resolution": resolution(first.items[score])}
    screened = counted(base[0], scale)
    chosen = {role: (s.task, s.metric) for role, s in screened.items() if s.counts}
    row["general_tasks"] = " ".join(name for name, _ in chosen.values())
    if first.method == "base":
        row |= {role: _own(screened[role]) for role in ROLES if role in screened}
    row |= {role: _percent(group, chosen[role]) for role in ROLES if role in chosen}
    if chosen:
        after = [_matrix(group, key) for key in chosen.values()]
        before = [_matrix(base, key).mean() for key in chosen.values()]
        lost = [_lost(*pair, first.path) for pair in zip(before, after, strict=True)]
        row["general"] = np.mean([_percent(group, key) for key in chosen.values()])
        row["general_ci"] = _interval(after).half_width
        row["forgetting"], row["forgetting_ci"] = _interval(lost)
    return row


def _own(screened: Screened) -> float:
    """The base's own score in percent, of a benchmark that does not count, too."""
    return 100 * screened.value if screened.averaged else np.nan


def _training(group: list[Scored], hours: pd.Series, sizes: Mapping) -> dict:
    """What one method's training took and left, means over its seeds."""
    records = [run.record for run in group]
    row = {name: _known_mean(records, name) for name in ("loss_spikes", "outside_mass")}
    row["gold_in_set"] = 100 * _known_mean(records, "gold_in_set")
    taken = [hours.get((*run.key, run.seed), np.nan) for run in group]
    row["device_hours"] = np.mean(taken)
    if group[0].method != "base":
        row["train_records"] = sizes.get("train_records")
    if (chance := sizes.get("chance")) is not None:
        row["domain_chance"] = 100 * chance
    return row


def _known_mean(records: list[dict], name: str) -> float:
    known = [record[name] for record in records if record.get(name) is not None]
    return float(np.mean(known)) if known else np.nan


def _percent(group: list[Scored], key: tuple[str, str]) -> float:
    return 100 * float(np.mean([run.value(*key) for run in group]))


def _matrix(group: list[Scored], key: tuple[str, str]) -> pd.DataFrame:
    """Outcomes in points, (seeds, items), items in the order of the first record."""
    for run in group:
        run.value(*key)  # names what is missing
        if key not in run.outcomes:
            raise UserError(
                f"{run.path.with_name(SAMPLES)} has no {key[1]} of {key[0]}",
                "Evaluate this run again.",
            )
    first = group[0].outcomes[key]
    for run in group[1:]:
        _check_pairs(first.index, run.outcomes[key].index, key[0], run.path)
    return 100 * pd.DataFrame([run.outcomes[key].reindex(first.index) for run in group])


def _lost(before: pd.Series, after: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Points lost, item by item: the base's outcome (mean over its seeds) minus each seed's."""
    _check_pairs(before.index, after.columns, "general benchmarks", path)
    return before - after


def _check_pairs(one: pd.Index, other: pd.Index, benchmark: str, path: Path) -> None:
    if len(alone := one.symmetric_difference(other)):
        raise UserError(
            f"{path}: {len(alone)} items of {benchmark} do not pair, as {alone[0][0]!r}",
            "Evaluate the base and its runs on the same data and prompts.",
        )


def _interval(matrices: list[pd.DataFrame]) -> Interval:
    return mean_interval([matrix.to_numpy() for matrix in matrices])


def _hours(costs: pd.DataFrame) -> pd.Series:
    """Device hours of training by scale, base, domain, method and seed."""
    training = costs[~costs["stage"].isin(NOT_TRAINING)]
    return training.groupby([*KEYS, "seed"])["device_hours"].sum(min_count=1)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as they are printed, so that what is computed from a table and its file agrees."""
    numbers = [name for name in table.columns if name in DECIMALS]
    table[numbers] = table[numbers].astype(float).round(DECIMALS) + 0.0  # + 0.0: -0.0 becomes 0.0
    return table


def number(value: float, decimals: int, empty: str = "") -> str:
    """Text with fixed decimals, `empty` for NaN, and never "-0.00"."""
    return empty if pd.isna(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"
