"""Learning rates: one sweep of the same grid for every method, on validation splits alone, and the
choice by domain gain minus general loss, with the choice by domain gain kept beside it."""

from collections.abc import Callable
from statistics import fmean

import pandas as pd

from lrmoclip.core import sharding
from lrmoclip.core.errors import UserError
from lrmoclip.evaluate import screening
from lrmoclip.evaluate.harness import Evaluator, score
from lrmoclip.models import checkpoints
from lrmoclip.train.run import Diverged, train
from lrmoclip.train.workbench import Workbench

KIND, RATES = "tuning", "learning rates"  # of artefacts
SWEEPS, PROVENANCE = "tuning.csv", "tuning_provenance.json"  # beside a file of rates
KEYS = ["scale", "base", "domain", "method"]
SWEEP = [*KEYS, "domain_gain", "general_loss", "lr"]


def sweep(bench: Workbench, method: str) -> list[dict]:
    """Train `method` at every rate of the grid and score it; a row a rate, in points.

    domain_gain and general_loss are against the base model; both are empty for a rate at which
    training diverges. As one of several processes of a torchrun, train one shard of each run; rank
    0 scores, and the rows of the others are empty.
    """
    scale, lead = bench.scale, sharding.place()[0] == 0
    gained = _judge(bench) if lead else None
    rows = []
    for lr in scale.tuning.learning_rates:
        row = dict(zip(KEYS, (scale.name, bench.base, bench.domain, method), strict=True))
        row |= {"domain_gain": None, "general_loss": None}
        run = bench.run(method, lr, scale.tuning.seed, telemetry=False)
        try:
            train(run)
        except Diverged:
            run = None
        if run:
            model = run.merged()
            run = None  # its moments make room for what scoring needs
            if gained:
                row |= gained(model.eval().to(checkpoints.best_device()))
        sharding.everyone(None)  # they wait here until rank 0 has scored
        rows.append({**row, "lr": lr})
    return rows


def _judge(bench: Workbench) -> Callable[..., dict]:
    """A function of a model: its domain_gain and general_loss on validation splits.

    general_loss is over the benchmarks with validation data on which the base is above chance, or
    over all where it is on none.
    """
    scale, domain, data = bench.scale, bench.scale.domain(bench.domain), bench.data_folder
    general = {r: b for r, b in scale.general.items() if b.averaged}
    general = screening.with_data(general, data, "validation")
    evaluator = Evaluator.of(scale, [*general.values(), domain], data, "validation")
    # A device may have no room for a base that stays beside a sharded run.
    alone = sharding.place()[1] == 1
    base = bench.model if alone else checkpoints.load_model(bench.base_folder)
    found, _ = evaluator(base, bench.tokenizer)
    above = screening.worth_scoring(general, screening.screen(found, general, data.about))
    if above and above != general:
        general = above
        evaluator = Evaluator.of(scale, [*general.values(), domain], data, "validation")

    def points(found: list[dict]) -> tuple[float, float]:
        return score(found, domain), fmean(score(found, b) for b in general.values())

    domain_before, general_before = points(found)

    def gained(model) -> dict:
        found, _ = evaluator(model, bench.tokenizer)
        domain_after, general_after = points(found)
        return {
            "domain_gain": round(domain_after - domain_before, 2),
            "general_loss": round(general_before - general_after, 2),
        }

    return gained


def replaced(kept: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """The rows of `kept`, those of the methods in `fresh` (by base and domain) replaced by its
    rows, at the end."""
    new = set(fresh[KEYS].itertuples(index=False, name=None))
    stays = [key not in new for key in kept[KEYS].itertuples(index=False, name=None)]
    return pd.concat([kept[stays], fresh], ignore_index=True)


def choose(swept: pd.DataFrame) -> pd.DataFrame:
    """One row a base, domain and method: `lr`, the best of gain minus loss (the lower rate of
    equals), whether it lies inside the grid, and the same for the choice by domain gain alone."""
    rows = []
    for keys, group in swept.groupby(KEYS, sort=False):
        group = group.sort_values("lr").reset_index(drop=True)
        net = group["domain_gain"] - group["general_loss"]
        if net.isna().all():
            raise UserError(f"{'/'.join(keys)}: diverged at every rate", "Add lower rates")
        best, greedy = group.loc[net.idxmax()], group.loc[group["domain_gain"].idxmax()]
        rows.append(
            dict(zip(KEYS, keys, strict=True))
            | {
                "lr": best["lr"],
                "domain_gain": best["domain_gain"],
                "general_loss": best["general_loss"],
                "interior": group["lr"].min() < best["lr"] < group["lr"].max(),
                "lr_by_domain": greedy["lr"],
                "domain_gain_by_domain": greedy["domain_gain"],
                "general_loss_by_domain": greedy["general_loss"],
            }
        )
    return pd.DataFrame(rows)
