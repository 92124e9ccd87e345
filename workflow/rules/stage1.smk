# One process trains the seeds of a job in turn: at micro scale starting costs as much as training.
for scale, seeds in seed_groups():

    rule:
        name:
            f"train_{scale.name}_{seeds[0]}"
        input:
            unpack(sets_of),
            data=rules.data.output,
            base=rules.base.output,
        output:
            models=directory(expand(f"{RUN}/model", seed=seeds)),
            logs=expand(f"{RUN}/training.csv", seed=seeds),
            runs=expand(f"{RUN}/run.json", seed=seeds),
        log:
            f"results/{{scale}}/logs/{{base}}/{{domain}}/{{method}}/train{seeds[0]}.log",
        benchmark:
            f"results/{{scale}}/logs/{{base}}/{{domain}}/{{method}}/train{seeds[0]}.tsv"
        wildcard_constraints:
            scale=scale.name,
            method="|".join(scale["methods"]),
        conda:
            "../../envs/conda.yaml"
        threads: lambda w: scale_of(w)["threads"]["train"]
        resources:
            gpu=gpus,
        params:
            lrmoclip=launcher,
            config=config_of,
            depends=setting("stage1", *COMPUTED),
            point=point,
            lr=learning_rate,
            options=as_options,
            seeds=seeds,
            outs=lambda w, output: [Path(path).parent for path in output.runs],
        shell:
            "{params.lrmoclip} train --config {params.config:q} --base {wildcards.base:q}"
            " --domain {wildcards.domain:q} --method {wildcards.method:q}"
            " --checkpoint {input.base:q} --data {input.data:q} {params.options:q}"
            " --seeds {params.seeds:q} --outs {params.outs:q} 2> {log:q}"
