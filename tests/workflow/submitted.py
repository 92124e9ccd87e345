"""Run as a script with Snakemake's options: what the Slurm plugin would submit for each job of a
dry run, at each attempt. The words are the plugin's own; only sbatch isn't called."""

import json
import sys

from snakemake import cli
from snakemake.executors import dryrun
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

# What the plugin fills in when it submits.
FILLED = {
    "run_uuid": "name", "slurm_logfile": "log", "comment_str": "", "workdir": "", "account": "",
    "partition": "",
}  # fmt: skip
run_job = dryrun.Executor.run_job


def record(executor, job) -> None:
    local = job.rule.name in executor.workflow._localrules
    for job.attempt in range(1, executor.workflow.execution_settings.retries + 2):
        words = get_submit_command(job, FILLED) + set_gres_string(job)
        about = {"rule": job.rule.name, "wildcards": dict(job.wildcards.items())}
        print(json.dumps(about | {"local": local, "attempt": job.attempt, "sbatch": words}))
    job.attempt = 1
    run_job(executor, job)


dryrun.Executor.run_job = record
sys.exit(cli.main(["--dryrun", "--cores", "64", *sys.argv[1:]]))
