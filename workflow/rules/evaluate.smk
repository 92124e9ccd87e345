# One process scores all seeds of a method, for starting the harness costs more than a micro model's
# items. Seeds are a list of each scale, so each scale has its own rule.
for scale in SCALES.values():

    rule:
        name:
            f"evaluate_{scale.name}"
        input:
            data=f"results/{scale.name}/data",
            models=expand(
                f"results/{scale.name}/{{{{base}}}}/{{{{domain}}}}/{{{{method}}}}/seed{{seed}}/model",
                seed=scale["seeds"],
            ),
        output:
            metrics=expand(
                f"results/{scale.name}/{{{{base}}}}/{{{{domain}}}}/{{{{method}}}}/seed{{seed}}/metrics.json",
                seed=scale["seeds"],
            ),
            samples=expand(
                f"results/{scale.name}/{{{{base}}}}/{{{{domain}}}}/{{{{method}}}}/seed{{seed}}/samples.parquet",
                seed=scale["seeds"],
            ),
        log:
            f"results/{scale.name}/logs/{{base}}/{{domain}}/{{method}}/evaluate.log",
        benchmark:
            f"results/{scale.name}/logs/{{base}}/{{domain}}/{{method}}/evaluate.tsv"
        wildcard_constraints:
            method="|".join(scale["methods"]),
        conda:
            "../../envs/conda.yaml"
        threads: scale["threads"]["evaluate"]
        params:
            lrmoclip=LRMOCLIP,
            config=scale.path,
            depends=configs.fingerprint([scale["evaluation"], scale["general"], scale["domains"]]),
            seeds=scale["seeds"],
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
