"""Tuning by docs/tuning.md: every method has the same number of trials over its learning rate and
its own knobs, judged on validation splits alone. A trial is a rate and settings of the knobs."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from lrmoclip.config import Scale
from lrmoclip.core import sharding
from lrmoclip.evaluate import screening, skill
from lrmoclip.evaluate.harness import Evaluator, score
from lrmoclip.methods import Method
from lrmoclip.models import checkpoints
from lrmoclip.train import choosing
from lrmoclip.train.departure import departure
from lrmoclip.train.run import Diverged, train
from lrmoclip.train.workbench import Workbench

KIND = "tuning"  # of artefacts
MEASURES = ["domain_gain", "exact_gain", "general_loss", "kl_general", "kl_domain", "nll_general"]
MEASURES += ["drift"]


class Trial(NamedTuple):
    lr: float
    settings: dict[str, Any]


def grid(scale: Scale, method: str) -> list[Trial]:
    """The trials that every method begins with: as many for each."""
    rates, settings = scale.tuning.learning_rates, scale.method(method).tried
    if scale.tuning.settings == 1:
        settings = [{}]
    elif len(settings) == 1:
        finer = len(rates) * scale.tuning.settings
        rates = [float(f"{lr:.3g}") for lr in np.geomspace(min(rates), max(rates), finer)]
    return [Trial(lr, chosen) for lr, chosen in product(rates, settings)]


def sweep(bench: Workbench, method: str) -> list[dict]:
    """A row a run of `method`: the grid, what lies beyond an edge that a choice stands on, and a
    second seed of what is near a choice. Measures as in `Judge`, empty where training diverged, and
    `reason` then says so.

    As one of several processes of a torchrun, train one shard of each run; rank 0 scores, and the
    rows of the others have no measures.
    """
    scale, rows = bench.scale, []
    judged = _judge(bench) if sharding.place()[0] == 0 else None
    first, *second = scale.tuning.seeds

    def try_all(trials: Iterator[Trial], seed: int) -> None:
        for trial in trials:
            rows.append(_tried(bench, method, trial, seed, judged))

    try_all(iter(grid(scale, method)), first)
    try_all(beyond(_known(rows), scale, method), first)
    for seed in second:
        try_all(near(_known(rows), scale), seed)
    return rows


def _known(rows: list[dict]) -> list[dict]:
    """The rows of rank 0, which alone have measures."""
    return sharding.everyone(rows)[0]


def _tried(
    bench: Workbench, method: str, trial: Trial, seed: int, judged: Callable[..., dict] | None
) -> dict:
    row = {"scale": bench.scale.name, "base": bench.base, "domain": bench.domain, "method": method}
    row |= {"lr": trial.lr, "settings": json.dumps(trial.settings, sort_keys=True), "seed": seed}
    row |= dict.fromkeys(MEASURES) | {"reason": ""}
    point = bench.scale.method(method).at(trial.settings)
    run = bench.run(point, trial.lr, seed, telemetry=False)
    try:
        train(run)
    except Diverged as diverged:
        run, row["reason"] = None, diverged.message
    if run:
        model = run.merged()
        run = None  # its moments make room for what scoring needs
        if judged:
            row |= judged(model.eval().to(checkpoints.best_device()))
    sharding.everyone(None)  # they wait here until rank 0 has scored
    return row


def beyond(rows: list[dict], scale: Scale, method: str) -> Iterator[Trial]:
    """What lies one step outside the range of what was tried, where a choice at a budget has its
    rate, or a knob of three values or more, on the edge of it."""
    point, rates = scale.method(method), sorted({row["lr"] for row in rows})
    seen = {(row["lr"], row["settings"]) for row in rows}
    for best in choosing.choices(rows, scale.tuning.budgets):
        settings = json.loads(best["settings"])
        for trial in _around(best["lr"], settings, rates, point):
            key = (trial.lr, json.dumps(trial.settings, sort_keys=True))
            if key not in seen and _is_allowed(point, trial, scale):
                seen.add(key)
                yield trial


def _around(lr: float, settings: dict, rates: list[float], point: Method) -> Iterator[Trial]:
    place = rates.index(lr)
    if (next_lr := _next(rates, lr)) is not None:
        yield Trial(next_lr, settings)
    for knob, value in settings.items():
        outside = _next(sorted(point.knobs[knob]), value) if len(point.knobs[knob]) > 2 else None
        if outside is not None:
            for nearby in rates[max(0, place - 1) : place + 2]:
                yield Trial(nearby, settings | {knob: outside})


def _next(values: list[float], value: float) -> float | None:
    """The next value of a range that ends at `value`, at the ratio of its last two; None within."""
    for last, inner in ((values[0], values[1]), (values[-1], values[-2])):
        if value == last:
            found = float(f"{last * last / inner:.3g}")
            return round(found) if isinstance(last, int) else found
    return None


def _is_allowed(point: Method, trial: Trial, scale: Scale) -> bool:
    try:
        point.at(trial.settings).objective.narrowed(scale.stage0.model_dump())
    except (ValidationError, ValueError):
        return False
    return 0 < trial.lr < 1


def near(rows: list[dict], scale: Scale) -> Iterator[Trial]:
    """The trials that a choice at a budget was made among: those with the most gain that lie within
    it or SLACK points above."""
    found = {
        (row["lr"], row["settings"])
        for budget in scale.tuning.budgets
        for row in choosing.contenders(rows, budget)
    }
    for lr, settings in sorted(found):
        yield Trial(lr, json.loads(settings))


def _judge(bench: Workbench) -> Callable[..., dict]:
    """A function of a model: what it gained and lost against the base, on validation splits.

    domain_gain, exact_gain (by greedy answers) and general_loss (`evaluate.skill`) in points,
    general_loss over the benchmarks with validation data on which the base is above chance, or over
    all where it is on none; and, but for a sharded run, `departure`.
    """
    scale, domain, data = bench.scale, bench.scale.domain(bench.domain), bench.data_folder
    general = {r: b for r, b in scale.general.items() if b.averaged}
    general = screening.with_data(general, data, "validation")
    evaluator = Evaluator.of(scale, [*general.values(), domain], data, "validation")
    # A device may have no room for a base that stays beside a sharded run.
    alone = sharding.place()[1] == 1
    base = bench.model if alone else checkpoints.load_model(bench.base_folder)
    before, _ = evaluator(base, bench.tokenizer)
    screened = screening.screen(before, general, data.about)
    chances = {role: found.get("chance", 0.0) for role, found in screened.items()}
    above = screening.worth_scoring(general, screened)
    if above and above != general:
        general = above
        evaluator = Evaluator.of(scale, [*general.values(), domain], data, "validation")

    def judged(model) -> dict:
        after, _ = evaluator(model, bench.tokenizer)
        found = {
            "domain_gain": score(after, domain) - score(before, domain),
            "general_loss": skill.lost(before, after, general, chances),
        }
        if domain.exact:
            found["exact_gain"] = score(after, domain, domain.exact) - score(
                before, domain, domain.exact
            )
        if alone:
            found |= departure(bench, model)
        return {name: round(value, 6) for name, value in found.items()}

    return judged
