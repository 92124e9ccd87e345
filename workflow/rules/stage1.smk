rule train:
    input:
        unpack(sets_of),
        data=rules.data.output,
        base=rules.base.output,
    output:
        model=directory("results/{scale}/{base}/{domain}/{method}/seed{seed}/model"),
        log="results/{scale}/{base}/{domain}/{method}/seed{seed}/training.csv",
        run="results/{scale}/{base}/{domain}/{method}/seed{seed}/run.json",
    log:
        "results/{scale}/logs/{base}/{domain}/{method}/train{seed}.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/{method}/train{seed}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w)["threads"]["train"]
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=setting("stage1"),
        point=point,
        lr=learning_rate,
        options=as_options,
    shell:
        "{params.lrmoclip} train --config {params.config} --base {wildcards.base}"
        " --domain {wildcards.domain} --method {wildcards.method} --seed {wildcards.seed}"
        " --checkpoint {input.base} --data {input.data} {params.options}"
        " --out $(dirname {output.run}) 2> {log}"
