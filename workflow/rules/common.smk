# Which scales run, and look-ups in their configs. Scales come from `--config scales=a,b`; the lists
# `methods`, `seeds` and `domains` may be given there, too.
import os
import shlex
import sys
from pathlib import Path

from lrmoclip import config as configs
from lrmoclip.cli import failures
from lrmoclip.cli.batches import batches, named, seeds_of, timed
from lrmoclip.cli.reproduce import MARK
from lrmoclip.core.errors import UserError
from lrmoclip.cost.plan.resources import planned
from lrmoclip.methods import Need
from lrmoclip.models import bases
from lrmoclip.report.kinds import SCORED, TRAINED

CONFIGS = Path(os.path.relpath(Path(workflow.basedir) / "workflow" / "config"))
TABLES = ["metrics", "table1", "general", "regimes", "costs", "savings", "warnings"]
METHOD = "results/{scale}/{base}/{domain}/{method}"
# What was chosen of each scale, for the commands of its jobs.
CHOSEN = ".snakemake/scales/{scale}.yaml"
# Settings that every forward pass depends on.
COMPUTED = ("precision", "prompting")

try:
    SCALES = configs.load_chosen(CONFIGS, config)
    configs.write_chosen(SCALES, CHOSEN)
except UserError as error:
    sys.exit(f"error: {error}")
os.environ[MARK] = os.getcwd()  # by which jobs are known as this workflow's, should it be killed
FAILED = failures.watch()

# Commands name no interpreter: in a checkout that moved, and in a container, it is another one.
if not workflow.deployment_settings.deployment_method:
    found = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
    shell.prefix(f'export PATH={found}:"$PATH"; ')


# They take a moment: where Snakemake runs, whatever the others run on.
localrules:
    all,
    forgetting_plot,
    table1,
    learning_rates,
    tuning,
    keep,
    plan,
    scaling_plot,


onerror:
    failures.show_last(FAILED)


wildcard_constraints:
    scale="|".join(SCALES),
    base="[a-z0-9.-]+",
    domain="[a-z0-9_]+",
    method="[a-z0-9_]+",
    seeds=r"\d+(_\d+)*",
    n=r"\d+",


def scale_of(wildcards):
    return SCALES[wildcards.scale]


def chosen(wildcards):
    return CHOSEN.format(scale=wildcards.scale)


def settings(*keys):
    """A rule's parameter that reruns it when one of these parts of the config changes."""

    def value(wildcards):
        return configs.fingerprint([getattr(scale_of(wildcards), key) for key in keys])

    return value


def point(wildcards):
    """A rule's parameter that reruns it when the method's point changes."""
    return configs.fingerprint(scale_of(wildcards).method(wildcards.method).identity)


def scoring(wildcards):
    """A rule's parameter that reruns it when what it scores, or how, changes."""
    scale = scale_of(wildcards)
    parts = [getattr(scale, key) for key in ("evaluation", "general", *COMPUTED)]
    return configs.fingerprint([*parts, scale.domain(wildcards.domain)])


def learning_rate(wildcards):
    """The tuned rate; without one, nothing runs."""
    scale = scale_of(wildcards)
    try:
        return scale.learning_rate(wildcards.base, wildcards.domain, wildcards.method)
    except UserError as error:
        sys.exit(f"error: {error}")


def data_of(wildcards):
    """The folders that hold the records of a domain, and general ones."""
    domain = scale_of(wildcards).domains.get(wildcards.domain)  # none of the sample `replay`
    root = f"results/{wildcards.scale}"
    own = [f"{root}/own/{wildcards.domain}"] if domain and domain.folder else []
    return [f"{root}/data", *own]


def needed_files(wildcards, methods):
    """What methods need beside base and data, by need."""
    root = f"results/{wildcards.scale}/{wildcards.base}"
    places = {
        Need.STORE: f"{root}/{wildcards.domain}/stage0",
        Need.GENERAL_STORE: f"{root}/replay/stage0",
        Need.FISHER: f"{root}/fisher.safetensors",
    }
    needs = set().union(*(scale_of(wildcards).method(method).needs for method in methods))
    return {need.value: path for need, path in places.items() if need in needs}


def needed_by_method(wildcards):
    return needed_files(wildcards, [wildcards.method])


def as_options(wildcards, input):
    """The words of a command line that name what `needed_files` found."""
    names = [need.value for need in Need if need.value in input.keys()]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", input[name])]


def folders(wildcards):
    """The folder of each seed of a job."""
    root = METHOD.format(**wildcards)
    return [f"{root}/seed{seed}" for seed in seeds_of(wildcards.seeds)]


def jobs_of(kind, scale, seeds, **place):
    """The files that jobs of `kind` leave which have to do with these seeds of a method."""
    root = METHOD.format(scale=scale.name, **place)
    found = batches(Path(root), kind, seeds, scale.seeds_per_job)
    return [f"{root}/{kind}.{named(several)}.json" for several in found]


def files_of_runs(scale):
    """What the tables of a scale are made from, by kind."""
    root = f"results/{scale.name}"
    found = {"base": [], "scored": [], "timed": []}
    for base, domain in [(b, d) for b in scale.bases for d in scale.domains_to_run]:
        found["base"].append(f"{root}/{base}/{domain}/base/seed0/metrics.json")
        for method in scale.methods:
            place = dict(base=base, domain=domain, method=method)
            # The trained ones are named, so that one that is lost is made again.
            for kind in (TRAINED, SCORED):
                found["scored"] += jobs_of(kind, scale, scale.seeds, **place)
        numbers = timed(Path(f"{root}/{base}/{domain}"), scale.methods)
        found["timed"] += [f"{root}/{base}/{domain}/timings.{n}.json" for n in numbers]
    return found


def gpus(wildcards):
    """What a job that trains asks for, none at a scale without `gpus`."""
    return scale_of(wildcards).gpus


def gpu(wildcards):
    """What any other job that computes with a model asks for."""
    return min(1, gpus(wildcards))


def all_cores(scales):
    """For rules beside which nothing may run: no fewer than they compute with, where a cluster's
    job has no number of cores to take all of."""
    return max(workflow.resource_settings.cores or 1, *(scale.threads.train for scale in scales))


# What a job asks a cluster for: what the scale's plan.csv predicts, its own or the kept one, else
# this; each attempt more.
MEMORY_MB, RUNTIME_MIN = 8_000, 120
KEPT = Path(workflow.basedir) / "results" / "reference"
PLANNED = {
    scale: planned(f"results/{scale}/plan.csv") or planned(KEPT / scale / "plan.csv")
    for scale in SCALES
}


def memory(rule):
    return lambda w, attempt: attempt * getattr(asked(rule, w), "memory_mb", MEMORY_MB)


def runtime(rule):
    return lambda w, attempt: attempt * getattr(asked(rule, w), "runtime_minutes", RUNTIME_MIN)


def asked(rule, wildcards):
    names = [getattr(wildcards, key, "") for key in ("base", "domain", "method")]
    return PLANNED[wildcards.scale].get((rule, *names))
