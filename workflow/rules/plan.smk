# Before anything is submitted; needs neither data nor a base, and goes by them where they are there.
rule plan:
    input:
        devices="workflow/config/devices.yaml",
        kept=lambda w: sorted(str(path) for path in Path("results/reference").glob("*/costs.csv")),
        data=lambda w: [path for path in [f"results/{w.scale}/data"] if Path(path).exists()],
    output:
        plan="results/{scale}/plan.csv",
        check="results/{scale}/plan_check.csv",
        table="results/{scale}/predicted_table1.csv",
        about="results/{scale}/plan.json",
    log:
        "results/{scale}/logs/plan.log",
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
        config=config_of,
        depends=lambda w: configs.fingerprint([scale_of(w).settings, scale_of(w).methods]),
        root=lambda w, output: Path(output.plan).parent,
        methods=lambda w: scale_of(w)["methods"],
        seeds=lambda w: scale_of(w)["seeds"],
    shell:
        "{params.lrmoclip} plan --config {params.config:q} --devices {input.devices:q}"
        " --reference results/reference --root {params.root:q} --methods {params.methods:q}"
        " --seeds {params.seeds:q} --out {output.plan:q} 2> {log:q}"
