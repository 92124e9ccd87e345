rule base:
    input:
        data=rules.data.output,
    output:
        directory("results/{scale}/{base}/base"),
    params:
        config=config_of,
        depends=lambda w: configs.fingerprint(scale_of(w).base(w.base)),
    threads: lambda w: scale_of(w)["threads"]["pretrain"]
    log:
        "results/{scale}/logs/{base}/base.log",
    benchmark:
        "results/{scale}/logs/{base}/base.tsv"
    shell:
        "{LRMOCLIP} base --config {params.config} --base {wildcards.base} --data {input.data}"
        " --out {output} 2> {log}"


rule fisher:
    input:
        data=rules.data.output,
        base=rules.base.output,
    output:
        "results/{scale}/{base}/fisher.safetensors",
    params:
        config=config_of,
        depends=setting("ewc"),
    threads: lambda w: scale_of(w)["threads"]["train"]
    log:
        "results/{scale}/logs/{base}/fisher.log",
    benchmark:
        "results/{scale}/logs/{base}/fisher.tsv"
    shell:
        "{LRMOCLIP} fisher --config {params.config} --base {wildcards.base}"
        " --checkpoint {input.base} --data {input.data} --out {output} 2> {log}"
