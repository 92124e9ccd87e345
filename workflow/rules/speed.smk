# Not part of the default run: under ten minutes on two cores, all of them, so that nothing else
# runs while it measures.
rule speed:
    output:
        table="results/benchmarks.csv",
        about="results/benchmarks.json",
    log:
        "results/logs/speed.log",
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: all_cores(SCALES.values())
    resources:
        mem_mb=memory("speed"),
        runtime=runtime("speed"),
    shell:
        "python -m lrmoclip speed --threads {threads} --out {output.table:q} 2> {log:q}"


rule scaling_plot:
    input:
        rules.speed.output.table,
    output:
        png="results/figures/scaling.png",
        svg="results/figures/scaling.svg",
        about="results/figures/scaling.json",
    log:
        "results/logs/scaling_plot.log",
    conda:
        "../../envs/conda.yaml"
    shell:
        "python -m lrmoclip scaling --table {input:q} --out {output.png:q} 2> {log:q}"
