rule base:
    input:
        own_model,
        data=rules.data.output,
    output:
        directory("results/{scale}/{base}/base"),
    log:
        "results/{scale}/logs/{base}/base.log",
    benchmark:
        "results/{scale}/logs/{base}/base.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.pretrain
    resources:
        gpu=gpu,
        mem_mb=memory("base"),
        runtime=runtime("base"),
    params:
        config=chosen,
        depends=lambda w: configs.fingerprint(scale_of(w).base(w.base)),
    shell:
        "python -m lrmoclip base --config {params.config:q} --base {wildcards.base:q}"
        " --data {input.data:q} --out {output:q} 2> {log:q}"


rule fisher:
    input:
        data=rules.data.output,
        base=rules.base.output,
    output:
        tensors="results/{scale}/{base}/fisher.safetensors",
        about="results/{scale}/{base}/fisher.json",
    log:
        "results/{scale}/logs/{base}/fisher.log",
    benchmark:
        "results/{scale}/logs/{base}/fisher.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.train
    resources:
        gpu=gpu,
        mem_mb=memory("fisher"),
        runtime=runtime("fisher"),
    params:
        config=chosen,
        depends=settings("ewc", *COMPUTED),
    shell:
        "python -m lrmoclip fisher --config {params.config:q} --base {wildcards.base:q}"
        " --checkpoint {input.base:q} --data {input.data:q} --out {output.tensors:q} 2> {log:q}"
