rule data:
    output:
        directory("results/{scale}/data"),
    log:
        "results/{scale}/logs/data.log",
    benchmark:
        "results/{scale}/logs/data.tsv"
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=setting("data"),
    shell:
        "{params.lrmoclip} data --config {params.config} --out {output} 2> {log}"
