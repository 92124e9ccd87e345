rule stage0:
    input:
        data=rules.data.output,
        base=rules.base.output,
    output:
        directory("results/{scale}/{base}/{domain}/stage0"),
    params:
        config=config_of,
        depends=setting("stage0"),
    threads: lambda w: scale_of(w)["threads"]["train"]
    log:
        "results/{scale}/logs/{base}/{domain}/stage0.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/stage0.tsv"
    shell:
        "{LRMOCLIP} stage0 --config {params.config} --base {wildcards.base}"
        " --domain {wildcards.domain} --checkpoint {input.base} --data {input.data}"
        " --out {output} 2> {log}"
