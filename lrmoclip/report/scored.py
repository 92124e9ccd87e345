"""Runs that were scored: `metrics.json`, and beside it `samples.parquet` (outcomes by item) and,
but for the base model, `run.json`; each read once, its digest checked, held against the others."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lrmoclip.config import Scale
from lrmoclip.core import files
from lrmoclip.core.artefacts import check_digest
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import is_unfinished
from lrmoclip.report.kinds import EVALUATION, METRICS_FILE, RUN, RUN_FILE, SAMPLES

_AGAIN = "Evaluate this run again"

KEYS = ["scale", "base", "domain", "method"]
METRICS = [*KEYS, "seed", "benchmark", "split", "metric", "value", "n"]


@dataclass(frozen=True)
class Scored:
    """One run on one split: values and numbers of items by (benchmark, metric), outcomes
    by item.

    rows: of metrics.csv. screening: what the base's `metrics.json` says of each general benchmark,
    empty for others. record: `run.json`, empty for the base. wall_s: of the evaluation.
    """

    path: Path
    key: tuple[str, str, str, str]  # scale, base, domain, method
    seed: int
    rows: pd.DataFrame
    values: dict[tuple[str, str], float]
    items: dict[tuple[str, str], int]
    outcomes: dict[tuple[str, str], pd.Series]  # index: (item, how often it came before)
    screening: dict[str, dict]
    record: dict
    weights: str
    wall_s: float

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


def load(paths: Iterable[Path], scale: Scale, split: str = "test") -> list[Scored]:
    """The runs whose `metrics.json` are given, on one split.

    Raises UserError where a file is missing, broken or of another scale.
    """
    benchmarks = [b for b in scale.general.values() if b.averaged] + [*scale.domains.values()]
    needed = {(b.task, metric) for b in benchmarks for metric in filter(None, (b.metric, b.exact))}
    return [_load(Path(path), scale.name, needed, split) for path in paths]


def finished(results: Path) -> list[Path]:
    """Every `metrics.json` below a folder, in order; a run that is not scored yet has none."""
    found = sorted(Path(results).rglob(METRICS_FILE))
    return [path for path in found if not is_unfinished(path)]


def left_out(runs: list[Scored], scale: Scale) -> dict[Path, str]:
    """Why, of the runs that are not as the scale's config has them: the method is not known, its
    settings or its rate were others, or the base model was another one."""
    bases = {run.key[:3]: run.weights for run in runs if run.method == "base"}
    reasons = {run.path: _reason(run, scale, bases) for run in runs}
    return {path: reason for path, reason in reasons.items() if reason}


def _reason(run: Scored, scale: Scale, bases: dict[tuple, str]) -> str | None:
    _, base, domain, method = run.key
    known = {"base": scale.bases, "domain": scale.domains, "method": scale.points}
    for what, name in {"base": base, "domain": domain, "method": method}.items():
        if name not in known[what] and name != "base":
            return f"the config has no {what} {name!r}"
    if method == "base":
        return None
    made = run.record["provenance"]
    try:
        lr, point = scale.chosen(base, domain, method)
    except UserError as error:
        return error.message
    if made["config"] != scale.run_settings(point, lr):
        return "it was trained with other settings than the config has now"
    if made["base"] != bases.get(run.key[:3], made["base"]):
        return "it was trained from another base model"
    return None


def metrics_table(runs: Iterable[Scored]) -> pd.DataFrame:
    """The tidy table of all runs, one measurement a row, sorted by its keys.

    Raises UserError for a measurement that is repeated.
    """
    found = [run.rows for run in runs]
    return _sorted(pd.concat(found) if found else pd.DataFrame(columns=METRICS))


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    keys = METRICS[:-2]
    table = table.sort_values(keys, ignore_index=True)
    if (repeated := table.duplicated(keys)).any():
        first = " ".join(map(str, table.loc[repeated.idxmax(), keys]))
        raise UserError(f"metrics.json: measured twice: {first}", "Give each run once.")
    return table


def _load(path: Path, scale: str, needed: set[tuple[str, str]], split: str) -> Scored:
    evaluation = files.read_sealed(path, EVALUATION)
    if evaluation["scale"] != scale:
        raise UserError(
            f"{path}: of the scale {evaluation['scale']}, not {scale}",
            "Name one scale's files, and its config",
        )
    head = {key: evaluation[key] for key in [*KEYS, "seed"]}
    rows = [head | {key: row[key] for key in METRICS[5:]} for row in evaluation["rows"]]
    table = _sorted(pd.DataFrame(rows, columns=METRICS))
    metrics = table[table["split"] == split]
    if metrics.empty:
        raise UserError(f"{path}: nothing of the split {split!r}", _AGAIN)
    values = {(row.benchmark, row.metric): float(row.value) for row in metrics.itertuples()}
    items = {(row.benchmark, row.metric): int(row.n) for row in metrics.itertuples()}
    outcomes = _outcomes(path.with_name(SAMPLES), evaluation["files"][SAMPLES], needed, split)
    for key in outcomes.keys() & values.keys():
        if not np.isclose(outcomes[key].mean(), values[key], rtol=1e-5, atol=1e-7):
            raise UserError(
                f"{path} and {SAMPLES} disagree on {' '.join(key)}: "
                f"{values[key]:g} and {outcomes[key].mean():g}",
                f"They are of two evaluations. {_AGAIN}",
            )
    trained = evaluation["method"] != "base"
    run = files.read_sealed(path.with_name(RUN_FILE), RUN) if trained else {}
    if trained and evaluation["weights"] != run["weights"]:
        raise UserError(f"{path}: of other weights than those that {RUN_FILE} is of", _AGAIN)
    return Scored(
        path=path,
        key=tuple(evaluation[name] for name in KEYS),
        seed=evaluation["seed"],
        rows=table,
        values=values,
        items=items,
        outcomes=outcomes,
        screening=evaluation.get("screening", {}),
        record=run,
        weights=evaluation["weights"],
        wall_s=evaluation["wall_s"],
    )


def _outcomes(
    path: Path, digest: str, needed: set[tuple[str, str]], split: str
) -> dict[tuple[str, str], pd.Series]:
    check_digest(path, digest, _AGAIN)
    samples = pd.read_parquet(path, columns=["benchmark", "split", "metric", "item", "value"])
    samples = samples[samples["split"] == split]
    # Two items may be the same text; they are told apart by their order, which is fixed.
    samples["copy"] = samples.groupby(["benchmark", "metric", "item"]).cumcount()
    return {
        key: group.set_index(["item", "copy"])["value"]
        for key, group in samples.groupby(["benchmark", "metric"])
        if key in needed
    }
