"""Learning rates: one sweep of the same grid for every method, on validation splits alone, and the
choice by domain gain minus general loss, with the choice by domain gain kept beside it."""

import pandas as pd

from lrmoclip.errors import UserError
from lrmoclip.evaluation import Evaluator, score
from lrmoclip.tasks import load_tasks
from lrmoclip.training import train
from lrmoclip.workbench import Workbench

KEYS = ["scale", "base", "domain", "method"]


def sweep(bench: Workbench, method: str) -> list[dict]:
    """Train `method` at every rate of the grid and score it; a row a rate, in points.

    domain_gain and general_loss are against the base model. A rate at which training diverges has
    empty scores.
    """
    scale, settings = bench.scale, bench.scale["evaluation"]
    domain, general = scale.domain(bench.domain), list(scale["general"].values())
    tasks = load_tasks([*general, domain], bench.data, "validation", settings)
    evaluator = Evaluator(tasks, "validation", settings["batch_size"])

    def scores(model) -> tuple[float, float]:
        found, _ = evaluator(model, bench.tokenizer)
        return score(found, domain), sum(score(found, b) for b in general) / len(general)

    domain_before, general_before = scores(bench.model)
    rows = []
    for lr in scale["tuning"]["learning_rates"]:
        row = dict(zip(KEYS, (scale.name, bench.base, bench.domain, method), strict=True))
        run = bench.run(method, lr, scale["tuning"]["seed"], telemetry=False)
        try:
            train(run)
            domain_after, general_after = scores(run.merged().eval())
            row |= {
                "domain_gain": round(domain_after - domain_before, 2),
                "general_loss": round(general_before - general_after, 2),
            }
        except UserError:  # diverged: a finding about the rate, not a reason to stop
            row |= {"domain_gain": None, "general_loss": None}
        rows.append({**row, "lr": lr})
    return rows


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
