# One process scores the seeds of a job, for starting the harness costs more than their items.
for scale, seeds in seed_groups():

    rule:
        name:
            f"evaluate_{scale.name}_{seeds[0]}"
        input:
            data=rules.data.output,
            models=expand(f"{RUN}/model", seed=seeds),
            base="results/{scale}/{base}/{domain}/base/seed0/metrics.json",
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
        resources:
            gpu=gpu,
        params:
            lrmoclip=LRMOCLIP,
            config=config_of,
            depends=benchmarks_of,
            seeds=seeds,
            outs=lambda w, output: [Path(path).parent for path in output.metrics],
        shell:
            "{params.lrmoclip} evaluate --config {params.config:q} --base {wildcards.base:q}"
            " --domain {wildcards.domain:q} --method {wildcards.method:q} --data {input.data:q}"
            " --seeds {params.seeds:q} --models {input.models:q} --outs {params.outs:q}"
            " --base-metrics {input.base:q} 2> {log:q}"


# The base model is a method without training, its seed is 0. It is scored on all benchmarks, and
# says on which of them a method is worth scoring.
rule evaluate_base:
    input:
        unpack(general_scores),
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
    resources:
        gpu=gpu,
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=benchmarks_of,
        out=lambda w, output: Path(output.metrics).parent,
        options=lambda w, input: [
            word for path in input.get("general", []) for word in ("--general-from", path)
        ],
    shell:
        "{params.lrmoclip} evaluate --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --method base --data {input.data:q}"
        " --seeds 0 --models {input.model:q} --outs {params.out:q} {params.options:q} 2> {log:q}"
