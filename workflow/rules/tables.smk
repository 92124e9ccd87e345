def run_files(wildcards):
    scale = scale_of(wildcards)
    places = dict(base=scale["bases"], domain=scale["domains"])
    root = "results/{{scale}}/{base}/{domain}"
    trained = dict(method=scale["methods"], seed=scale["seeds"], **places)
    return {
        "base": expand(f"{root}/base/seed0/metrics.json", **places),
        "metrics": expand(f"{root}/{{method}}/seed{{seed}}/metrics.json", **trained),
        "samples": expand(f"{root}/{{method}}/seed{{seed}}/samples.parquet", **trained),
        "runs": expand(f"{root}/{{method}}/seed{{seed}}/run.json", **trained),
        "timed": expand(f"{root}/timings.json", **places),
    }


# All cores, so that nothing else runs while steps are timed.
rule timings:
    input:
        unpack(sets_of_all),
        data=rules.data.output,
        base=rules.base.output,
    output:
        "results/{scale}/{base}/{domain}/timings.json",
    params:
        config=config_of,
        depends=setting("stage0", "stage1", "ewc", "timing", "threads"),
        methods=lambda w: scale_of(w)["methods"],
        options=as_options,
    threads: workflow.cores
    log:
        "results/{scale}/logs/{base}/{domain}/timings.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/timings.tsv"
    shell:
        "{LRMOCLIP} timings --config {params.config} --base {wildcards.base}"
        " --domain {wildcards.domain} --checkpoint {input.base} --data {input.data}"
        " {params.options} --methods {params.methods} --out {output} 2> {log}"


rule tables:
    input:
        unpack(run_files),
    output:
        multiext(
            "results/{scale}/",
            "metrics.csv",
            "table1.csv",
            "costs.csv",
            "savings.csv",
            "provenance.json",
        ),
    params:
        config=config_of,
        folders=lambda w, input: [Path(path).parent for path in [*input.base, *input.metrics]],
        out=lambda w, output: Path(output[0]).parent,
    log:
        "results/{scale}/logs/tables.log",
    shell:
        "{LRMOCLIP} tables --config {params.config} --runs {params.folders}"
        " --timed {input.timed} --out {params.out} 2> {log}"


rule forgetting_plot:
    input:
        "results/{scale}/table1.csv",
    output:
        multiext("results/{scale}/figures/forgetting", ".png", ".svg"),
    log:
        "results/{scale}/logs/forgetting_plot.log",
    shell:
        "{LRMOCLIP} figure --table {input} --out {output[0]} 2> {log}"


rule table1:
    input:
        expand("results/{scale}/table1.csv", scale=SCALES),
    output:
        "results/table1.csv",
    log:
        "results/logs/table1.log",
    shell:
        "{LRMOCLIP} gather --tables {input} --out {output} 2> {log}"
