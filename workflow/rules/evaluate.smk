# One process scores the seeds of a job, for starting the harness costs more than their items.
for scale, seeds in seed_groups():

    rule:
        name:
            f"evaluate_{scale.name}_{seeds[0]}"
        input:
            data=rules.data.output,
            models=expand(f"{RUN}/model", seed=seeds),
        output:
            metrics=expand(f"{RUN}/metrics.json", seed=seeds),
            samples=expand(f"{RUN}/samples.parquet", seed=seeds),
        log:
            f"results/{{scale}}/logs/{{base}}/{{domain}}/{{method}}/evaluate{seeds[0]}.log",
        benchmark:
            f"results/{{scale}}/logs/{{base}}/{{domain}}/{{method}}/evaluate{seeds[0]}.tsv"
        wildcard_constraints:
            scale=scale.name,
            method="|".join(scale["methods"]),
        conda:
            "../../envs/conda.yaml"
        threads: lambda w: scale_of(w)["threads"]["evaluate"]
        params:
            lrmoclip=LRMOCLIP,
            config=config_of,
            depends=setting("evaluation", "general", "domains"),
            seeds=seeds,
            outs=lambda w, output: [Path(path).parent for path in output.metrics],
        shell:
            "{params.lrmoclip} evaluate --config {params.config} --base {wildcards.base}"
            " --domain {wildcards.domain} --method {wildcards.method} --data {input.data}"
            " --seeds {params.seeds} --models {input.models} --outs {params.outs} 2> {log}"


# The base model is a method without training, its seed is 0.
rule evaluate_base:
    input:
        data=rules.data.output,
        model=rules.base.output,
    output:
        metrics="results/{scale}/{base}/{domain}/base/seed0/metrics.json",
        samples="results/{scale}/{base}/{domain}/base/seed0/samples.parquet",
    log:
        "results/{scale}/logs/{base}/{domain}/base/evaluate.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/base/evaluate.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w)["threads"]["evaluate"]
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=setting("evaluation", "general", "domains"),
        out=lambda w, output: Path(output.metrics).parent,
    shell:
        "{params.lrmoclip} evaluate --config {params.config} --base {wildcards.base}"
        " --domain {wildcards.domain} --method base --data {input.data}"
        " --seeds 0 --models {input.model} --outs {params.out} 2> {log}"
