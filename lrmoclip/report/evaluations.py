"""The records of evaluated runs: `metrics.json`, and beside it `samples.parquet` (outcomes by item)
and, but for the base model, `run.json`; read, their digests checked, held against each other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lrmoclip.core import files
from lrmoclip.core.artefacts import check_digest
from lrmoclip.core.errors import UserError

# Kinds of artefacts, and their files.
RUN, EVALUATION = "run", "evaluation"
METRICS_FILE, SAMPLES, RECORD = "metrics.json", "samples.parquet", "run.json"
_AGAIN = "Evaluate this run again"

KEYS = ["scale", "base", "domain", "method"]
METRICS = [*KEYS, "seed", "benchmark", "split", "metric", "value", "n"]


@dataclass(frozen=True)
class Run:
    """One evaluated run: values and numbers of items by (benchmark, metric), outcomes by item.

    screening: what the base's `metrics.json` says of each general benchmark, empty for others.
    record: `run.json`, empty for the base.
    """

    path: Path
    key: tuple[str, str, str, str]  # scale, base, domain, method
    seed: int
    values: dict[tuple[str, str], float]
    items: dict[tuple[str, str], int]
    outcomes: dict[tuple[str, str], pd.Series]  # index: (item, how often it came before)
    screening: dict[str, dict]
    record: dict

    @property
    def method(self) -> str:
        return self.key[3]

    def value(self, benchmark: str, metric: str) -> float:
        """Raises UserError where it was not measured."""
        if (benchmark, metric) not in self.values:
            raise UserError(
                f"{self.path} has no {metric} of {benchmark}",
                f"{_AGAIN}, or mend the benchmarks in the scale's config",
            )
        return self.values[benchmark, metric]


def metrics_table(paths: Iterable[Path]) -> pd.DataFrame:
    """The tidy table of all `metrics.json`, one measurement a row, sorted by its keys.

    Raises UserError for a file that is missing, is not one of ours, or repeats a measurement.
    """
    return _tidy([files.read_sealed(path, EVALUATION) for path in paths])


def _tidy(evaluations: list[dict]) -> pd.DataFrame:
    rows = []
    for record in evaluations:
        head = {key: record[key] for key in [*KEYS, "seed"]}
        rows += [head | {key: row[key] for key in METRICS[5:]} for row in record["rows"]]
    keys = METRICS[:-2]
    table = pd.DataFrame(rows, columns=METRICS).sort_values(keys, ignore_index=True)
    if (repeated := table.duplicated(keys)).any():
        first = " ".join(map(str, table.loc[repeated.idxmax(), keys]))
        raise UserError(f"metrics.json: measured twice: {first}", "Give each run once.")
    return table


def load(paths: Iterable[Path], roles: Mapping[str, Mapping], split: str = "test") -> list[Run]:
    """The runs whose `metrics.json` are given, on one split.

    roles: the scale's benchmarks, {"general": {role: {"task", "metric", "chance", "averaged"}},
    "domains": {domain: {"task", "metric", "exact"}}}. Raises UserError where a file is missing or
    broken.
    """
    averaged = [r for r in roles["general"].values() if r.get("averaged", True)]
    needed = {(r["task"], r["metric"]) for r in [*averaged, *roles["domains"].values()]}
    return [_load(Path(path), needed, split) for path in paths]


def _load(path: Path, needed: set[tuple[str, str]], split: str) -> Run:
    evaluation = files.read_sealed(path, EVALUATION)
    metrics = _tidy([evaluation])
    metrics = metrics[metrics["split"] == split]
    if metrics.empty:
        raise UserError(f"{path}: nothing of the split {split!r}", _AGAIN)
    values = {(row.benchmark, row.metric): float(row.value) for row in metrics.itertuples()}
    items = {(row.benchmark, row.metric): int(row.n) for row in metrics.itertuples()}
    samples = _read_samples(path.with_name(SAMPLES), evaluation["files"][SAMPLES])
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
                f"{path} and {SAMPLES} disagree on {' '.join(key)}: "
                f"{values[key]:g} and {outcomes[key].mean():g}",
                f"They are of two evaluations. {_AGAIN}",
            )
    trained = evaluation["method"] != "base"
    record = files.read_sealed(path.with_name(RECORD), RUN) if trained else {}
    if trained and evaluation["weights"] != record["weights"]:
        raise UserError(f"{path}: of other weights than those that {RECORD} is of", _AGAIN)
    key = tuple(evaluation[name] for name in KEYS)
    screening = evaluation.get("screening", {})
    return Run(path, key, evaluation["seed"], values, items, outcomes, screening, record)


def _read_samples(path: Path, digest: str) -> pd.DataFrame:
    check_digest(path, digest, _AGAIN)
    return pd.read_parquet(path, columns=["benchmark", "split", "metric", "item", "value"])
