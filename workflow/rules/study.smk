# What decides the claims: several bases, every method tuned anew. Not part of the default run. Runs take
# the choices that are kept (`snakemake tuning keep`), and trials are made for the fronts.
STUDIES = [name for name, scale in SCALES.items() if scale.study]
CLAIMS = CONFIGS / "claims.yaml"


rule decide:
    input:
        unpack(lambda w: files_of_study(scale_of(w))),
        claims=CLAIMS,
        savings="results/{scale}/savings.csv",
        config=chosen,
    output:
        tables=expand(
            "results/{{scale}}/{table}.csv", table=["study", "claims", "fronts", "equal_rates"]
        ),
        provenance="results/{scale}/study_provenance.json",
    log:
        "results/{scale}/logs/decide.log",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=memory("tables"),
        runtime=runtime("tables"),
    params:
        results=lambda w, output: Path(output.provenance).parent,
    shell:
        "python -m lrmoclip study --config {input.config:q} --results {params.results:q}"
        " --claims {input.claims:q} --sweeps {input.sweeps:q} --out {params.results:q} 2> {log:q}"


rule machinery:
    input:
        claims=CLAIMS,
        config=chosen,
    output:
        table="results/{scale}/machinery.csv",
        about="results/{scale}/machinery.json",
    log:
        "results/{scale}/logs/machinery.log",
    conda:
        "../../envs/conda.yaml"
    shell:
        "python -m lrmoclip machinery --config {input.config:q} --claims {input.claims:q}"
        " --out {output.table:q} 2> {log:q}"


rule fronts_plot:
    input:
        table="results/{scale}/fronts.csv",
    output:
        png="results/{scale}/figures/fronts.png",
        svg="results/{scale}/figures/fronts.svg",
        about="results/{scale}/figures/fronts.json",
    log:
        "results/{scale}/logs/fronts_plot.log",
    conda:
        "../../envs/conda.yaml"
    params:
        config=chosen,
    shell:
        "python -m lrmoclip fronts --config {params.config:q} --table {input.table:q}"
        " --out {output.png:q} 2> {log:q}"


rule departure_plot:
    input:
        table="results/{scale}/fronts.csv",
    output:
        png="results/{scale}/figures/departure.png",
        svg="results/{scale}/figures/departure.svg",
        about="results/{scale}/figures/departure.json",
    log:
        "results/{scale}/logs/departure_plot.log",
    conda:
        "../../envs/conda.yaml"
    params:
        config=chosen,
    shell:
        "python -m lrmoclip departure --config {params.config:q} --table {input.table:q}"
        " --out {output.png:q} 2> {log:q}"


rule study:
    input:
        expand("results/{scale}/{table}.csv", scale=STUDIES, table=["claims", "machinery"]),
        expand(
            "results/{scale}/figures/{figure}.{kind}",
            scale=STUDIES,
            figure=["fronts", "departure"],
            kind=["png", "svg"],
        ),
