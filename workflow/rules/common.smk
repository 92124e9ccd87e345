# Which scales run, and look-ups in their configs. Scales come from `--config scales=a,b`; the lists
# `methods` and `seeds` may be given there, too.
import os
import shlex
import sys
from pathlib import Path

from lrmoclip.config import scale as configs
from lrmoclip.cli import failures
from lrmoclip.core.errors import UserError
from lrmoclip.cli.reproduce import MARK

CONFIGS = Path(workflow.basedir) / "workflow" / "config"
TABLES = ["metrics", "table1", "general", "regimes", "costs", "savings", "warnings"]
# A run's folder; `expand` fills in its seed.
RUN = "results/{{scale}}/{{base}}/{{domain}}/{{method}}/seed{seed}"
# Settings that every forward pass depends on.
COMPUTED = ("precision", "prompting")
LRMOCLIP = shlex.join([sys.executable, "-m", "lrmoclip"])


def load_scales(chosen):
    try:
        return configs.load_chosen(CONFIGS, chosen)
    except UserError as error:
        sys.exit(f"error: {error}")


SCALES = load_scales(config)
os.environ[MARK] = os.getcwd()  # by which jobs are known as this workflow's, should it be killed
FAILED = failures.watch()


onerror:
    failures.show_last(FAILED)


wildcard_constraints:
    scale="|".join(SCALES),
    base="[a-z0-9.-]+",
    domain="[a-z0-9_]+",
    method="[a-z0-9_]+",
    seed=r"\d+",


def seed_groups():
    """Each scale with the seeds of each job: a process trains or scores so many in turn."""
    for scale in SCALES.values():
        size = scale["seeds_per_job"]
        for start in range(0, len(scale["seeds"]), size):
            yield scale, scale["seeds"][start : start + size]


def scale_of(wildcards):
    return SCALES[wildcards.scale]


def config_of(wildcards):
    return scale_of(wildcards).path


def gpus(wildcards):
    """What a job that trains asks for, none at a scale without `gpus`."""
    return scale_of(wildcards).settings.get("gpus", 0)


def gpu(wildcards):
    """What any other job that computes with a model asks for."""
    return min(1, gpus(wildcards))


def launcher(wildcards):
    """The command line's beginning: one process, or one a GPU where a run is sharded."""
    if (count := gpus(wildcards)) <= 1:
        return LRMOCLIP
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return shlex.join([*torchrun, "--nproc-per-node", str(count), "-m", "lrmoclip"])


def setting(*keys):
    """A rule's parameter that reruns it when this part of the config changes."""

    def value(wildcards):
        return configs.fingerprint([scale_of(wildcards).settings.get(key) for key in keys])

    return value


def point(wildcards):
    """A rule's parameter that reruns it when the method's point changes."""
    return configs.fingerprint(scale_of(wildcards).method(wildcards.method))


def benchmarks_of(wildcards):
    """A rule's parameter that reruns it when what it scores, or how, changes."""
    scale = scale_of(wildcards)
    parts = [scale.settings.get(key) for key in ("evaluation", "general", *COMPUTED)]
    return configs.fingerprint([*parts, scale.domain(wildcards.domain)])


def general_scores(wildcards):
    """The base's general scores are the same for every domain: the first domain's are taken over."""
    first = next(iter(scale_of(wildcards)["domains"]))
    path = f"results/{wildcards.scale}/{wildcards.base}/{first}/base/seed0/metrics.json"
    return {} if wildcards.domain == first else {"general": [path]}


def sets_of(wildcards):
    """Files that a method needs beside base and data, as options of the command line."""
    return option_files(scale_of(wildcards), [wildcards.method], wildcards)


def sets_of_all(wildcards):
    scale = scale_of(wildcards)
    return option_files(scale, scale["methods"], wildcards)


def option_files(scale, methods, wildcards):
    root = f"results/{wildcards.scale}/{wildcards.base}"
    points = [scale.method(method) for method in methods]
    found = {}
    if any(configs.needs_sets(p) for p in points):
        found["store"] = f"{root}/{wildcards.domain}/stage0"
    if any(configs.needs_sets(p) and p["replay"] for p in points):
        found["general_store"] = f"{root}/replay/stage0"
    if any(p["penalty"]["name"] == "ewc" for p in points):
        found["fisher"] = f"{root}/fisher.safetensors"
    return found


def as_options(wildcards, input):
    """The words of a command line that name what `option_files` found."""
    names = [name for name in ("store", "general_store", "fisher") if name in input.keys()]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", input[name])]


def learning_rate(wildcards):
    """None where none is kept: the rule's command then says so in one line."""
    try:
        return scale_of(wildcards).learning_rate(wildcards.base, wildcards.domain, wildcards.method)
    except UserError:
        return None


def files_of_runs(scale):
    """What the tables of a scale are made from, by kind."""
    places = dict(base=scale["bases"], domain=scale["domains"])
    root = f"results/{scale.name}/{{base}}/{{domain}}"
    trained = dict(method=scale["methods"], seed=scale["seeds"], **places)
    return {
        "base": expand(f"{root}/base/seed0/metrics.json", **places),
        "metrics": expand(f"{root}/{{method}}/seed{{seed}}/metrics.json", **trained),
        "samples": expand(f"{root}/{{method}}/seed{{seed}}/samples.parquet", **trained),
        "runs": expand(f"{root}/{{method}}/seed{{seed}}/run.json", **trained),
        "timed": expand(f"{root}/timings.json", **places),
    }


def run_files(wildcards):
    return files_of_runs(scale_of(wildcards))
