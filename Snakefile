# From a config to the tables: one rule file an arrow.
#   .venv/bin/snakemake --cores all results/table1.csv
include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/asked.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/base.smk"
include: "workflow/rules/stage0.smk"
include: "workflow/rules/stage1.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/study.smk"
include: "workflow/rules/speed.smk"
include: "workflow/rules/plan.smk"


rule all:
    default_target: True
    input:
        "results/table1.csv",
        expand("results/{scale}/{table}.csv", scale=SCALES, table=TABLES),
        # Named, so that one that is lost is made again even where the tables are there.
        [files_of_runs(scale).values() for scale in SCALES.values()],
        expand("results/{scale}/figures/forgetting.{kind}", scale=SCALES, kind=["png", "svg"]),
