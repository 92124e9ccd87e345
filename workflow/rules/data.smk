rule data:
    output:
        directory("results/{scale}/data"),
    params:
        config=config_of,
        depends=setting("data"),
    log:
        "results/{scale}/logs/data.log",
    benchmark:
        "results/{scale}/logs/data.tsv"
    shell:
        "{LRMOCLIP} data --config {params.config} --out {output} 2> {log}"
