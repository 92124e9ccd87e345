"""The command line: one subcommand an arrow of the workflow, and the edge at which a user's mistake
becomes one line and exit status 2."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from lrmoclip.core.errors import UserError
from lrmoclip.core.files import is_full

# Nothing is downloaded but by `fetch`, and forked tokenizers only warn.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
CONFIGS = Path("workflow/config")  # below the repository's root


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status (0, or 2 after a user's mistake)."""
    arguments = vars(parser().parse_args(argv))
    run, online = arguments.pop("run"), arguments.pop("online", False)
    for name, value in ({} if online else OFFLINE).items():
        os.environ.setdefault(name, value)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        run(**arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_full(error):
            raise
        print(f"error: {error.filename or error}: no space left", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "lrmoclip").startswith("lrmoclip"):
            raise
        hint = "Install what it needs: pip install 'lrmoclip[workflow,benchmark]'"
        print(f"error: the command line needs {error.name}. {hint}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    top = argparse.ArgumentParser(prog="lrmoclip", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")

    fetch = _add(commands, "fetch", "download models and data sets of a scale", scale=False)
    fetch.set_defaults(run=lambda **given: _run("fetch", True, given), online=True)
    named = fetch.add_mutually_exclusive_group(required=True)
    named.add_argument("--config", type=Path, help="workflow/config/*.yaml")
    named.add_argument(
        "--scale", dest="config", metavar="NAME", type=lambda name: CONFIGS / f"{name}.yaml",
        help=f"short for --config {CONFIGS}/NAME.yaml",
    )  # fmt: skip
    _options(fetch, "cache", required=False)

    data = _add(commands, "data", "write the scale's data sets")
    _options(data, "out")
    _options(data, "data-dir", required=False)

    base = _add(commands, "base", "pretrain, convert or copy a base model")
    _options(base, "base", "data", "out")

    stage0 = _add(commands, "stage0", "collect candidate sets: Stage 0")
    _options(stage0, "base", "domain", "checkpoint", "data", "out")

    fisher = _add(commands, "fisher", "Fisher diagonal on general data, for EWC")
    _options(fisher, "base", "checkpoint", "data", "out")

    train = _add(commands, "train", "train one method, seed after seed: Stage 1")
    _options(train, "base", "domain", "method", "checkpoint", "data")
    _options(train, "store", "general-store", "fisher", required=False)

    evaluate = _add(commands, "evaluate", "score checkpoints with lm-evaluation-harness")
    _options(evaluate, "base", "domain", "method", "data")
    _options(evaluate, "base-metrics", "general-from", required=False)
    evaluate.add_argument("--models", type=Path, nargs="+", required=True)
    for command in (train, evaluate):
        command.add_argument("--seeds", type=int, nargs="+", required=True)
        command.add_argument("--outs", type=Path, nargs="+", required=True, help="one a seed")

    tune = _add(commands, "tune", "sweep the learning rates of one method on validation splits")
    _options(tune, "base", "domain", "method", "checkpoint", "data", "out")
    _options(tune, "store", "general-store", "fisher", required=False)

    rates = _add(commands, "learning-rates", "choose learning rates from sweeps", scale=False)
    rates.add_argument("--sweeps", type=Path, nargs="+", required=True)
    _options(rates, "out")

    timings = _add(commands, "timings", "time steps of all methods in turns")
    _options(timings, "base", "domain", "checkpoint", "data", "out")
    _options(timings, "store", "general-store", "fisher", required=False)
    timings.add_argument("--methods", nargs="+", required=True)

    plan = _add(commands, "plan", "predict time, memory, disk and cost of a scale")
    _options(plan, "devices", "reference", "out")
    plan.add_argument("--root", type=Path, help="results/<scale>, whose data are read if there")
    plan.add_argument("--methods", nargs="+", help="instead of the scale's")
    plan.add_argument("--seeds", type=int, nargs="+", help="instead of the scale's")

    tables = _add(commands, "tables", "a scale's tables: metrics, table 1, costs and others")
    tables.add_argument("--runs", type=Path, nargs="+", required=True)
    tables.add_argument("--timed", type=Path, nargs="+", required=True)
    _options(tables, "out")
    _options(tables, "data", required=False)

    gather = _add(commands, "gather", "one table 1 of several scales", scale=False)
    gather.add_argument("--tables", type=Path, nargs="+", required=True)
    _options(gather, "out")

    figure = _add(commands, "figure", "the forgetting plot of a table 1", scale=False)
    figure.add_argument("--table", type=Path, required=True)
    _options(figure, "out")

    benchmarks = _add(commands, "benchmarks", "time store, loss and optimizer", scale=False)
    benchmarks.add_argument("--threads", type=int, required=True, help="of torch")
    _options(benchmarks, "out")

    scaling = _add(commands, "scaling", "the scaling plot of a benchmarks.csv", scale=False)
    scaling.add_argument("--table", type=Path, required=True)
    _options(scaling, "out")

    show = _add(commands, "show", "print table 1 and savings, aligned", scale=False)
    show.add_argument("--results", type=Path, required=True, help="the folder of table1.csv")

    readme = _add(commands, "readme", "write the kept tables into a document", scale=False)
    readme.add_argument("--reference", type=Path, required=True, help="results/reference")
    readme.add_argument("--into", type=Path, required=True, help="a Markdown file with markers")
    return top


def _add(commands, name: str, words: str, scale: bool = True) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=words, description=words)
    command.set_defaults(run=lambda **given: _run(name.replace("-", "_"), scale, given))
    if scale:
        command.add_argument("--config", type=Path, required=True, help="workflow/config/*.yaml")
    return command


def _options(command: argparse.ArgumentParser, *names: str, required: bool = True) -> None:
    kinds = dict.fromkeys(("base", "domain", "method"), str)
    for name in names:
        command.add_argument(f"--{name}", type=kinds.get(name, Path), required=required)


def _run(name: str, with_scale: bool, given: dict) -> None:
    from lrmoclip.cli import commands
    from lrmoclip.config import scale as config

    if with_scale:
        given["scale"] = config.load(given.pop("config"))
    if "checkpoint" in given:
        given = _with_bench(given)
    getattr(commands, name)(**given)


def _with_bench(given: dict) -> dict:
    """Replace the options that describe a Workbench by one."""
    from dataclasses import fields

    from lrmoclip.train.workbench import Workbench

    names = {field.name for field in fields(Workbench)}
    bench = Workbench(**{"domain": "replay"} | {k: v for k, v in given.items() if k in names})
    if bench.domain != "replay":  # the sample of general text is not a domain of the config
        bench.scale.domain(bench.domain)
    return {"bench": bench} | {k: v for k, v in given.items() if k not in names}
