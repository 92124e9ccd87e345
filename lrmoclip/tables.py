"""From the records of runs to `metrics.csv` and `table1.csv`, and to what a reader sees of them.

The columns are the contract in "Tables" of the design; intervals come from `lrmoclip.stats`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from lrmoclip import files
from lrmoclip.errors import UserError
from lrmoclip.stats import Interval, mean_interval

SAVINGS_LEGEND = (
    "Against full_ft, on {devices}. Steps alone, then with Stage 0 and Fisher in full (cost ratio) "
    "or shared among the seeds (amortised). The head's share is that of the vocabulary projection "
    "in a full_ft step's FLOPs: no restricted loss can save more."
)

KEYS = ["scale", "base", "domain", "method"]
METRICS = [*KEYS, "seed", "benchmark", "split", "metric", "value", "n"]
ROLES = ["mmlu", "bbh", "gpqa", "math"]
# Every column of numbers, with its decimals: files are the same to the byte, and no "-0.00".
DECIMALS = {
    **dict.fromkeys(["domain_score", "domain_score_ci", "domain_exact", *ROLES], 2),
    **dict.fromkeys(["general", "general_ci", "forgetting", "forgetting_ci"], 2),
    **{"loss_spikes": 2, "gold_in_set": 2, "outside_mass": 4, "device_hours": 6, "cost_ratio": 3},
}
TABLE1 = [
    *KEYS,
    "seeds",
    *("domain_score", "domain_score_ci", "domain_exact"),
    *ROLES,
    *("general", "general_ci", "general_tasks", "forgetting", "forgetting_ci"),
    *("loss_spikes", "gold_in_set", "outside_mass", "device_hours", "cost_ratio"),
]
NOT_TRAINING = ["evaluation", "probe"]  # stages of costs.csv that no training needs
STAND_INS = "Micro benchmarks are synthetic stand-ins."
LEGEND = (
    "Scores in percent ± half-width of the 95 % interval over seeds and items; forgetting: "
    "points of general score lost (less is better); cost ratio: device hours over those of full_ft."
)


def metrics_table(paths: Iterable[Path]) -> pd.DataFrame:
    """The tidy table of all `metrics.json`, one measurement a row, sorted by its keys.

    Raises UserError for a file that is missing, is not one of ours, or repeats a measurement.
    """
    rows = []
    for path in paths:
        record = files.read_json(Path(path))
        try:
            head = {key: record[key] for key in [*KEYS, "seed"]}
            rows += [head | {key: row[key] for key in METRICS[5:]} for row in record["rows"]]
        except KeyError as error:
            raise UserError(f"{path} has no {error}", "Evaluate this run again.") from None
    keys = METRICS[:-2]
    table = pd.DataFrame(rows, columns=METRICS).sort_values(keys, ignore_index=True)
    if (repeated := table.duplicated(keys)).any():
        first = " ".join(map(str, table.loc[repeated.idxmax(), keys]))
        raise UserError(f"metrics.json: measured twice: {first}", "Give each run once.")
    return table


def table1(
    paths: Iterable[Path],
    costs: pd.DataFrame,
    roles: Mapping[str, Mapping[str, Mapping]],
    methods: Sequence[str],
    split: str = "test",
) -> pd.DataFrame:
    """One row per scale, base, domain and method of the runs whose `metrics.json` are given.

    Beside each `metrics.json` lie `samples.parquet` (outcomes by item) and, but for the base,
    `run.json`. costs: the frame of `costs.csv`. roles: the scale's benchmarks,
    {"general": {role: {"task", "metric"}}, "domains": {domain: {"task", "metric", "exact"}}}.
    The base's row comes first, then `methods` in their order, then any others. Cells that do not
    apply are NaN; numbers are rounded as they are printed.

    Raises UserError where a file, a measurement or the base is missing, where items do not pair
    with the base's, and where samples contradict metrics.
    """
    needed = [*roles["general"].values(), *roles["domains"].values()]
    runs = [_load(Path(path), {(r["task"], r["metric"]) for r in needed}, split) for path in paths]
    hours = _hours(costs)
    order = {method: place for place, method in enumerate(["base", *methods])}

    groups: dict[tuple, list[_Run]] = {}
    for run in sorted(runs, key=lambda r: (*r.key[:3], order.get(r.method, len(order)), r.seed)):
        groups.setdefault(run.key, []).append(run)
    rows = []
    for key, group in groups.items():
        if (base := groups.get((*key[:3], "base"))) is None:
            place = "/".join(key[:3])
            raise UserError(f"No evaluation of the base model in {place}", "Evaluate it first.")
        rows.append(dict(zip(KEYS, key, strict=True)) | _row(group, base, roles, hours))
    table = pd.DataFrame(rows, columns=TABLE1)

    group_keys = [table[key] for key in KEYS[:3]]
    full = table["device_hours"].where(table["method"] == "full_ft").groupby(group_keys)
    table["cost_ratio"] = table["device_hours"] / full.transform("max")
    numbers = list(DECIMALS)
    table[numbers] = table[numbers].astype(float).round(DECIMALS) + 0.0  # + 0.0: -0.0 becomes 0.0
    return table


def gather(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several scales' table 1 in one. Raises UserError if they are not, or overlap."""
    tables = list(tables)
    for table in tables:
        if list(table.columns) != TABLE1:
            raise UserError(f"Not a table 1: columns {', '.join(table.columns)}", "Make it again.")
    rows = [row for table in tables for row in table.to_dict("records")]
    gathered = pd.DataFrame(rows, columns=TABLE1)
    if (repeated := gathered.duplicated(KEYS)).any():
        first = "/".join(gathered.loc[repeated.idxmax(), KEYS])
        raise UserError(f"Table 1 has two rows for {first}", "Give each scale once.")
    return gathered


def to_csv(table: pd.DataFrame) -> str:
    """The text of a table's file: columns of table 1 with fixed decimals, empty where NaN."""
    text = table.copy()
    for column in DECIMALS.keys() & set(table.columns):
        text[column] = [_number(value, DECIMALS[column]) for value in table[column]]
    return text.to_csv(index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """A table of this module from its file. Raises UserError for one that can't be read."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error})", "Make it again.") from None


def show(table: pd.DataFrame) -> str:
    """Table 1 for the console: a heading for each base, a line of legend."""
    return _render(table, "{base} ({scale})", "simple")


def markdown(table: pd.DataFrame) -> str:
    """Table 1 for the README."""
    return _render(table, "**{base}** ({scale})\n", "github")


def savings(table: pd.DataFrame, style: str = "simple") -> str:
    """savings.csv for a reader: the head's share beside what it bounds and what was measured."""
    cells = {
        "domain": table["domain"],
        "method": table["method"],
        "head's share %": _column(100 * table[["head_share"]], "head_share", 1),
        "mean set size": _column(table, "set_size_mean", 1),
        "step ratio, FLOPs": _column(table, "step_ratio_predicted", 2),
        "step ratio, measured": _column(table, "step_ratio", 2),
        "cost ratio": _column(table, "cost_ratio", 2),
        "amortised": _column(table, "cost_ratio_amortised", 2),
    }
    align = ["left", "left"] + ["right"] * (len(cells) - 2)
    grid = tabulate(cells, "keys", style, disable_numparse=True, colalign=align)
    devices = ", ".join(table["device"].unique())
    return f"{grid}\n\n{SAVINGS_LEGEND.format(devices=devices)}\n"


def warnings(table: pd.DataFrame) -> str:
    """warnings.csv for a reader: a line a domain and method, with the first of its messages."""
    lines = []
    for (domain, method), rows in table.groupby(["domain", "method"], sort=False):
        count, first = rows["seed"].nunique(), rows["warning"].iloc[0]
        lines.append(f"warning: {domain}, {method}, {count} runs, such as: {first}")
    return "\n".join(lines) + "\n" if lines else ""


@dataclass(frozen=True)
class _Run:
    """One evaluated run: values by (benchmark, metric), and its outcomes by item."""

    path: Path
    key: tuple[str, str, str, str]  # scale, base, domain, method
    seed: int
    values: dict[tuple[str, str], float]
    outcomes: dict[tuple[str, str], pd.Series]  # index: (item, how often it came before)
    record: dict

    @property
    def method(self) -> str:
        return self.key[3]

    def value(self, benchmark: str, metric: str) -> float:
        if (benchmark, metric) not in self.values:
            raise UserError(
                f"{self.path} has no {metric} of {benchmark}",
                "Evaluate this run again, or mend the benchmarks in the scale's config.",
            )
        return self.values[benchmark, metric]


def _load(path: Path, needed: set[tuple[str, str]], split: str) -> _Run:
    metrics = metrics_table([path])
    metrics = metrics[metrics["split"] == split]
    if metrics.empty:
        raise UserError(f"{path} has nothing of the split {split!r}", "Evaluate this run again.")
    first = metrics.iloc[0]
    values = {(row.benchmark, row.metric): float(row.value) for row in metrics.itertuples()}
    samples = _read_samples(path.with_name("samples.parquet"))
    samples = samples[samples["split"] == split]
    # Two items may be the same text; they are told apart by their order, which is fixed.
    samples["copy"] = samples.groupby(["benchmark", "metric", "item"]).cumcount()
    outcomes = {
        key: group.set_index(["item", "copy"])["value"]
        for key, group in samples.groupby(["benchmark", "metric"])
        if key in needed
    }
    for key in outcomes.keys() & values.keys():
        if not np.isclose(outcomes[key].mean(), values[key], rtol=1e-5, atol=1e-7):
            raise UserError(
                f"{path} and samples.parquet disagree on {' '.join(key)}: "
                f"{values[key]:g} and {outcomes[key].mean():g}",
                "They are of two evaluations; evaluate this run again.",
            )
    trained = first["method"] != "base"
    record = files.read_json(path.with_name("run.json")) if trained else {}
    return _Run(path, tuple(first[KEYS]), int(first["seed"]), values, outcomes, record)


def _read_samples(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=["benchmark", "split", "metric", "item", "value"])
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error})", "Evaluate this run again.") from None


def _row(runs: list[_Run], base: list[_Run], roles: Mapping, hours: pd.Series) -> dict:
    """What table 1 says of one method: `runs` are its seeds, `base` the base model's."""
    domain = runs[0].key[2]
    if domain not in roles["domains"]:
        raise UserError(
            f"{runs[0].path} is of the domain {domain!r}, which the scale's config does not have",
            f"It has {', '.join(roles['domains'])}.",
        )
    task = roles["domains"][domain]
    score = (task["task"], task["metric"])
    general = {role: (r["task"], r["metric"]) for role, r in roles["general"].items()}

    row = {"seeds": len(runs), "general_tasks": " ".join(name for name, _ in general.values())}
    row["domain_score"] = _percent(runs, score)
    row["domain_score_ci"] = _interval([_matrix(runs, score)]).half_width
    row["domain_exact"] = _percent(runs, (task["task"], task["exact"]))
    row |= {role: _percent(runs, general[role]) for role in ROLES if role in general}
    if general:
        after = [_matrix(runs, key) for key in general.values()]
        before = [_matrix(base, key).mean() for key in general.values()]
        lost = [_lost(*pair, runs[0].path) for pair in zip(before, after, strict=True)]
        row["general"] = np.mean([_percent(runs, key) for key in general.values()])
        row["general_ci"] = _interval(after).half_width
        row["forgetting"], row["forgetting_ci"] = _interval(lost)
    for column, scale in {"loss_spikes": 1, "gold_in_set": 100, "outside_mass": 1}.items():
        known = [run.record[column] for run in runs if run.record.get(column) is not None]
        row[column] = scale * np.mean(known) if known else np.nan
    row["device_hours"] = np.mean([hours.get((*run.key, run.seed), np.nan) for run in runs])
    return row


def _percent(runs: list[_Run], key: tuple[str, str]) -> float:
    return 100 * float(np.mean([run.value(*key) for run in runs]))


def _matrix(runs: list[_Run], key: tuple[str, str]) -> pd.DataFrame:
    """Outcomes in points, (seeds, items), items in the order of the first run."""
    for run in runs:
        run.value(*key)  # names what is missing
        if key not in run.outcomes:
            raise UserError(
                f"{run.path.with_name('samples.parquet')} has no {key[1]} of {key[0]}",
                "Evaluate this run again.",
            )
    first = runs[0].outcomes[key]
    for run in runs[1:]:
        _check_pairs(first.index, run.outcomes[key].index, key[0], run.path)
    return 100 * pd.DataFrame([run.outcomes[key].reindex(first.index) for run in runs])


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


def _render(table: pd.DataFrame, heading: str, style: str) -> str:
    parts = []
    for (scale, base), rows in table.groupby(["scale", "base"], sort=False):
        cells = {
            "domain": rows["domain"],
            "method": rows["method"],
            "seeds": rows["seeds"].astype(str),
            "domain score": _with_width(rows, "domain_score"),
            "exact": _column(rows, "domain_exact", 1),
            "general": _with_width(rows, "general"),
            "forgetting": _with_width(rows, "forgetting"),
            "gold in set %": _column(rows, "gold_in_set", 1),
            "outside mass": _column(rows, "outside_mass", 3),
            "cost ratio": _column(rows, "cost_ratio", 2),
        }
        align = ["left", "left"] + ["right"] * (len(cells) - 2)
        grid = tabulate(cells, "keys", style, disable_numparse=True, colalign=align)
        parts.append(heading.format(scale=scale, base=base) + "\n" + grid)
    stand_ins = f" {STAND_INS}" if (table["scale"] == "micro").any() else ""
    return "\n\n".join([*parts, LEGEND + stand_ins]) + "\n"


def _number(value: float, decimals: int, empty: str = "") -> str:
    return empty if pd.isna(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"


def _column(rows: pd.DataFrame, name: str, decimals: int) -> list[str]:
    return [_number(value, decimals, empty="–") for value in rows[name]]


def _with_width(rows: pd.DataFrame, name: str) -> list[str]:
    widths = [_number(width, 1) for width in rows[f"{name}_ci"]]
    pairs = zip(_column(rows, name, 1), widths, strict=True)
    return [f"{value} ±{width}" if width else value for value, width in pairs]
