# One process scores the seeds of a job, for starting the harness costs more than their items.
rule evaluate:
    input:
        trained,
        data=data_of,
        base="results/{scale}/{base}/{domain}/base/seed0/metrics.json",
    output:
        f"{METHOD}/{SCORED}.{{seeds}}.json",
    log:
        "results/{scale}/logs/{base}/{domain}/{method}/evaluate.{seeds}.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/{method}/evaluate.{seeds}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.evaluate
    resources:
        gpu=gpu,
        mem_mb=memory("evaluate"),
        runtime=runtime("evaluate"),
    params:
        config=chosen,
        depends=scoring,
        seeds=lambda w: seeds_of(w.seeds),
        outs=folders,
        models=lambda w: [f"{folder}/model" for folder in folders(w)],
    shell:
        "python -m lrmoclip evaluate --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --method {wildcards.method:q} --data {input.data:q}"
        " --seeds {params.seeds:q} --models {params.models:q} --outs {params.outs:q}"
        " --base-metrics {input.base:q} --done {output:q} 2> {log:q}"


# The base model is a method without training, its seed is 0. It is scored on all benchmarks, and
# says on which of them a method is worth scoring.
rule evaluate_base:
    input:
        unpack(general_scores),
        data=data_of,
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
    threads: lambda w: scale_of(w).threads.evaluate
    resources:
        gpu=gpu,
        mem_mb=memory("evaluate_base"),
        runtime=runtime("evaluate_base"),
    params:
        config=chosen,
        depends=scoring,
        out=lambda w, output: Path(output.metrics).parent,
        options=lambda w, input: [
            word for path in input.get("general", []) for word in ("--general-from", path)
        ],
    shell:
        "python -m lrmoclip evaluate --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --method base --data {input.data:q}"
        " --seeds 0 --models {input.model:q} --outs {params.out:q} {params.options:q} 2> {log:q}"
