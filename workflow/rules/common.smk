# Which scales run, and look-ups in their configs. Scales come from `--config scales=a,b`; the lists
# `methods`, `seeds` and `domains` may be given there, too.
import os
import shlex
import sys
from pathlib import Path

from lrmoclip import config as configs
from lrmoclip.cli import events, failures
from lrmoclip.cli.reproduce import MARK
from lrmoclip.core.errors import UserError

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
events.watch()

# Commands name no interpreter: in a checkout that moved, and in a container, it is another one.
if not workflow.deployment_settings.deployment_method:
    found = shlex.quote(str(Path(sys.executable).parent)).replace("{", "{{").replace("}", "}}")
    shell.prefix(f'export PATH={found}:"$PATH"; ')


# They take a moment: where Snakemake runs, whatever the others run on.
localrules:
    all,
    forgetting_plot,
    fronts_plot,
    departure_plot,
    machinery,
    study,
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
    """A rule's parameter that reruns it when the method's point changes, as it was chosen."""
    found = scale_of(wildcards).point(wildcards.base, wildcards.domain, wildcards.method)
    return configs.fingerprint(found.identity)


def knobs(wildcards):
    """A rule's parameter that reruns it when what is tried of the method changes."""
    found = scale_of(wildcards).method(wildcards.method)
    return configs.fingerprint([found.identity, found.tried])


def scoring(wildcards):
    """A rule's parameter that reruns it when what it scores, or how, changes."""
    scale = scale_of(wildcards)
    parts = [getattr(scale, key) for key in ("evaluation", "general", *COMPUTED)]
    return configs.fingerprint([*parts, scale.domain(wildcards.domain)])


def learning_rate(wildcards):
    """The tuned rate; without one, nothing runs."""
    scale = scale_of(wildcards)
    try:
        return scale.chosen(wildcards.base, wildcards.domain, wildcards.method).lr
    except UserError as error:
        sys.exit(f"error: {error}")
