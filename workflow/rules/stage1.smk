# One process trains the seeds of a job in turn: at micro scale starting costs as much as training.
# Their folders are no outputs of the rule: of a job that dies, what it finished stays.
rule train:
    input:
        unpack(needed_by_method),
        data=data_of,
        base=rules.base.output,
    output:
        f"{METHOD}/{TRAINED}.{{seeds}}.json",
    log:
        "results/{scale}/logs/{base}/{domain}/{method}/train.{seeds}.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/{method}/train.{seeds}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.train
    resources:
        gpu=gpus,
        mem_mb=memory("train"),
        runtime=runtime("train"),
    params:
        config=chosen,
        depends=settings("stage1", *COMPUTED),
        point=point,
        lr=learning_rate,
        options=as_options,
        seeds=lambda w: seeds_of(w.seeds),
        outs=folders,
    shell:
        "python -m lrmoclip train --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --method {wildcards.method:q}"
        " --checkpoint {input.base:q} --data {input.data:q} {params.options:q}"
        " --seeds {params.seeds:q} --outs {params.outs:q} --done {output:q} 2> {log:q}"
