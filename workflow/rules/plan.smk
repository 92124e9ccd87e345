# Before anything is submitted; needs neither data nor a base, and goes by them where they are there.
rule plan:
    input:
        devices=CONFIGS / "devices.yaml",
        kept=lambda w: sorted(str(path) for path in Path("results/reference").glob("*/costs.csv")),
        data=lambda w: [path for path in [f"results/{w.scale}/data"] if Path(path).exists()],
        config=chosen,
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
        root=lambda w, output: Path(output.plan).parent,
    shell:
        "python -m lrmoclip plan --config {input.config:q} --devices {input.devices:q}"
        " --reference results/reference --root {params.root:q} --out {output.plan:q} 2> {log:q}"
