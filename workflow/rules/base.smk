rule base:
    input:
        data=rules.data.output,
    output:
        directory("results/{scale}/{base}/base"),
    log:
        "results/{scale}/logs/{base}/base.log",
    benchmark:
        "results/{scale}/logs/{base}/base.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w)["threads"]["pretrain"]
    resources:
        gpu=gpu,
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=lambda w: configs.fingerprint(scale_of(w).base(w.base)),
    shell:
        "{params.lrmoclip} base --config {params.config} --base {wildcards.base} --data {input.data}"
        " --out {output} 2> {log}"


rule fisher:
    input:
        data=rules.data.output,
        base=rules.base.output,
    output:
        "results/{scale}/{base}/fisher.safetensors",
    log:
        "results/{scale}/logs/{base}/fisher.log",
    benchmark:
        "results/{scale}/logs/{base}/fisher.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w)["threads"]["train"]
    resources:
        gpu=gpu,
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=setting("ewc", *COMPUTED),
    shell:
        "{params.lrmoclip} fisher --config {params.config} --base {wildcards.base}"
        " --checkpoint {input.base} --data {input.data} --out {output} 2> {log}"
