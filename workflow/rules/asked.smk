# What a job asks of the machine or the cluster that runs it.
from lrmoclip.cost.plan.resources import planned


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
