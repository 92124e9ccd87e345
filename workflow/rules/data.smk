rule data:
    output:
        directory("results/{scale}/data"),
    log:
        "results/{scale}/logs/data.log",
    benchmark:
        "results/{scale}/logs/data.tsv"
    conda:
        "../../envs/conda.yaml"
    # A resource, since parameters rerun a rule: the same data from another place are the same data.
    resources:
        source=shlex.join(["--data-dir", str(config["data_dir"])]) if "data_dir" in config else "",
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=setting("data"),
    shell:
        "{params.lrmoclip} data --config {params.config:q} --out {output:q} {resources.source}"
        " 2> {log:q}"
