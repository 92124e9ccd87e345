rule data:
    output:
        directory("results/{scale}/data"),
    log:
        "results/{scale}/logs/data.log",
    benchmark:
        "results/{scale}/logs/data.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=memory("data"),
        runtime=runtime("data"),
    params:
        config=chosen,
        depends=settings("data"),
    shell:
        "python -m lrmoclip data --config {params.config:q} --out {output:q} 2> {log:q}"


rule own_data:
    input:
        own_records,
        data=rules.data.output,
    output:
        directory("results/{scale}/own/{domain}"),
    log:
        "results/{scale}/logs/own/{domain}.log",
    benchmark:
        "results/{scale}/logs/own/{domain}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=memory("data"),
        runtime=runtime("data"),
    params:
        config=chosen,
        depends=lambda w: configs.fingerprint(scale_of(w).domain(w.domain)),
    shell:
        "python -m lrmoclip own-data --config {params.config:q} --domain {wildcards.domain:q}"
        " --data {input.data:q} --out {output:q} 2> {log:q}"
