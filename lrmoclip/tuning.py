"""Learning rates: one sweep of the same grid for every method, on validation splits alone, and the
choice by domain gain minus general loss, with the choice by domain gain kept beside it."""

from statistics import fmean

import pandas as pd

from lrmoclip import screening
from lrmoclip.errors import UserError
from lrmoclip.evaluation import Evaluator, score
from lrmoclip.training import train
from lrmoclip.workbench import Workbench

KEYS = ["scale", "base", "domain", "method"]


def sweep(bench: Workbench, method: str) -> list[dict]:
    """Train `method` at every rate of the grid and score it; a row a rate, in points.

    domain_gain and general_loss are against the base model. general_loss is over the benchmarks
    with validation data on which the base is above chance, or over all where it is on none. A rate
    at which training diverges has empty scores.
    """
    scale, domain = bench.scale, bench.scale.domain(bench.domain)
    facts = screening.manifest(bench.data)
    general = {r: b for r, b in scale["general"].items() if b.get("averaged", True)}
    general = screening.with_data(general, facts, "validation")
    evaluator = Evaluator.of(scale, [*general.values(), domain], bench.data, "validation")
    found, _ = evaluator(bench.model, bench.tokenizer)
    above = screening.worth_scoring(general, screening.screen(found, general, facts))
    if above and above != general:
        general = above
        evaluator = Evaluator.of(scale, [*general.values(), domain], bench.data, "validation")

    def points(found: list[dict]) -> tuple[float, float]:
        return score(found, domain), fmean(score(found, b) for b in general.values())

    domain_before, general_before = points(found)
    rows = []
    for lr in scale["tuning"]["learning_rates"]:
        row = dict(zip(KEYS, (scale.name, bench.base, bench.domain, method), strict=True))
        run = bench.run(method, lr, scale["tuning"]["seed"], telemetry=False)
        try:
            train(run)
            found, _ = evaluator(run.merged().eval(), bench.tokenizer)
            domain_after, general_after = points(found)
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
