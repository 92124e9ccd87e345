# Not part of the default run. Its outcome is kept (`snakemake keep`) where configs read it.
rule tune:
    input:
        unpack(needed_by_method),
        data=data_of,
        base=rules.base.output,
    output:
        table="results/{scale}/{base}/{domain}/{method}/tuning.csv",
        about="results/{scale}/{base}/{domain}/{method}/tuning.json",
    log:
        "results/{scale}/logs/{base}/{domain}/{method}/tune.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/{method}/tune.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.train
    resources:
        gpu=gpus,
        mem_mb=memory("tune"),
        runtime=runtime("tune"),
    params:
        config=chosen,
        depends=settings("stage1", "tuning", "evaluation", "general", *COMPUTED),
        point=knobs,
        options=as_options,
    shell:
        "python -m lrmoclip tune --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --method {wildcards.method:q}"
        " --checkpoint {input.base:q} --data {input.data:q} {params.options:q}"
        " --out {output.table:q} 2> {log:q}"


rule learning_rates:
    input:
        lambda w: expand(
            "results/{{scale}}/{base}/{domain}/{method}/tuning.csv",
            base=scale_of(w).bases_to_run,
            domain=scale_of(w).domains_to_run,
            method=scale_of(w).methods,
        ),
    output:
        rates="results/{scale}/learning_rates.csv",
        sweeps="results/{scale}/tuning.csv",
        provenance="results/{scale}/tuning_provenance.json",
    log:
        "results/{scale}/logs/learning_rates.log",
    conda:
        "../../envs/conda.yaml"
    params:
        config=chosen,
        depends=settings("tuning"),
    shell:
        "python -m lrmoclip learning-rates --config {params.config:q} --sweeps {input:q} --out {output.rates:q} 2> {log:q}"


rule tuning:
    input:
        expand("results/{scale}/learning_rates.csv", scale=SCALES),


# Rates of other methods, bases and domains that are kept stay.
rule keep:
    input:
        expand("results/{scale}/learning_rates.csv", scale=SCALES),
    log:
        "results/logs/keep.log",
    conda:
        "../../envs/conda.yaml"
    params:
        configs=[CHOSEN.format(scale=scale) for scale in SCALES],
    shell:
        "python -m lrmoclip keep --configs {params.configs:q} --rates {input:q} 2> {log:q}"
