# All cores, so that nothing else runs while steps are timed.
rule timings:
    input:
        unpack(sets_of_all),
        data=rules.data.output,
        base=rules.base.output,
    output:
        "results/{scale}/{base}/{domain}/timings.json",
    log:
        "results/{scale}/logs/{base}/{domain}/timings.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/timings.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: workflow.resource_settings.cores or 1
    resources:
        gpu=gpus,
    params:
        lrmoclip=launcher,
        config=config_of,
        depends=setting("stage0", "stage1", "ewc", "timing", "threads", *COMPUTED),
        methods=lambda w: scale_of(w)["methods"],
        options=as_options,
    shell:
        "{params.lrmoclip} timings --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --checkpoint {input.base:q} --data {input.data:q}"
        " {params.options:q} --methods {params.methods:q} --out {output:q} 2> {log:q}"


rule tables:
    input:
        unpack(run_files),
        data=rules.data.output,
    output:
        tables=expand("results/{{scale}}/{table}.csv", table=TABLES),
        provenance="results/{scale}/provenance.json",
    log:
        "results/{scale}/logs/tables.log",
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        folders=lambda w, input: [Path(path).parent for path in [*input.base, *input.metrics]],
        out=lambda w, output: Path(output.provenance).parent,
    shell:
        "{params.lrmoclip} tables --config {params.config:q} --runs {params.folders:q}"
        " --timed {input.timed:q} --data {input.data:q} --out {params.out:q} 2> {log:q}"


rule forgetting_plot:
    input:
        "results/{scale}/table1.csv",
    output:
        png="results/{scale}/figures/forgetting.png",
        svg="results/{scale}/figures/forgetting.svg",
        about="results/{scale}/figures/forgetting.json",
    log:
        "results/{scale}/logs/forgetting_plot.log",
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
    shell:
        "{params.lrmoclip} figure --table {input:q} --out {output.png:q} 2> {log:q}"


rule table1:
    input:
        expand("results/{scale}/table1.csv", scale=SCALES),
    output:
        table="results/table1.csv",
        about="results/table1.json",
    log:
        "results/logs/table1.log",
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
    shell:
        "{params.lrmoclip} gather --tables {input:q} --out {output.table:q} 2> {log:q}"
