rule stage0:
    input:
        data=data_of,
        base=rules.base.output,
    output:
        directory("results/{scale}/{base}/{domain}/stage0"),
    log:
        "results/{scale}/logs/{base}/{domain}/stage0.log",
    benchmark:
        "results/{scale}/logs/{base}/{domain}/stage0.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: scale_of(w).threads.train
    resources:
        gpu=gpu,
        mem_mb=memory("stage0"),
        runtime=runtime("stage0"),
    params:
        config=chosen,
        depends=settings("stage0", *COMPUTED),
    shell:
        "python -m lrmoclip stage0 --config {params.config:q} --base {wildcards.base:q}"
        " --domain {wildcards.domain:q} --checkpoint {input.base:q} --data {input.data:q}"
        " --out {output:q} 2> {log:q}"
