# Methods that were not timed before are timed beside the one that costs are held against.
# All cores, so that nothing else runs while steps are timed.
rule timings:
    input:
        unpack(lambda w: needed_files(w, methods_timed(w))),
        data=data_of,
        base=rules.base.output,
    output:
        "results/{scale}/{base}/{domain}/timings.{n}.json",
    log:
        "results/{scale}/logs/{base}/{domain}/timings.{n}.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/timings.{n}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: all_cores([scale_of(w)])
    resources:
        gpu=gpus,
        mem_mb=memory("timings"),
        runtime=runtime("timings"),
    params:
        config=chosen,
        depends=settings("stage0", "stage1", "ewc", "timing", "threads", *COMPUTED),
        methods=methods_timed,
        options=as_options,
    shell:
        "python -m lrmoclip timings --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --checkpoint {input.base:q} --data {input.data:q}"
        " {params.options:q} --methods {params.methods:q} --out {output:q} 2> {log:q}"


# From every finished run, those that were asked for before included. What was chosen now is an
# input: another choice makes the tables anew.
rule tables:
    input:
        unpack(lambda w: files_of_runs(scale_of(w))),
        data=all_data,
        config=chosen,
    output:
        tables=expand("results/{{scale}}/{table}.csv", table=TABLES),
        provenance="results/{scale}/provenance.json",
    log:
        "results/{scale}/logs/tables.log",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=memory("tables"),
        runtime=runtime("tables"),
    params:
        results=lambda w, output: Path(output.provenance).parent,
    shell:
        "python -m lrmoclip tables --config {input.config:q} --results {params.results:q}"
        " --data {input.data:q} --out {params.results:q} 2> {log:q}"


rule forgetting_plot:
    input:
        table="results/{scale}/table1.csv",
    output:
        png="results/{scale}/figures/forgetting.png",
        svg="results/{scale}/figures/forgetting.svg",
        about="results/{scale}/figures/forgetting.json",
    log:
        "results/{scale}/logs/forgetting_plot.log",
    conda:
        "../../envs/conda.yaml"
    params:
        config=chosen,
    shell:
        "python -m lrmoclip figure --configs {params.config:q} --table {input.table:q}"
        " --out {output.png:q} 2> {log:q}"


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
    shell:
        "python -m lrmoclip gather --tables {input:q} --out {output.table:q} 2> {log:q}"
