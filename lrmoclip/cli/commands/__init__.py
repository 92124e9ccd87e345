"""The arrows of the workflow, one function each: read files, call the library, write files.

Paths always come from the caller; nothing here knows the workflow's layout."""

from lrmoclip.cli.commands.inputs import base, data, fetch, fisher, stage0
from lrmoclip.cli.commands.reports import (
    benchmarks,
    figure,
    gather,
    plan,
    readme,
    scaling,
    show,
    tables,
)
from lrmoclip.cli.commands.runs import evaluate, learning_rates, timings, train, tune

__all__ = [
    "base",
    "benchmarks",
    "data",
    "evaluate",
    "fetch",
    "figure",
    "fisher",
    "gather",
    "learning_rates",
    "plan",
    "readme",
    "scaling",
    "show",
    "stage0",
    "tables",
    "timings",
    "train",
    "tune",
]
