# Not part of the default run: under ten minutes on two cores, all of them, so that nothing else
# runs while it measures.
rule benchmarks:
    output:
        "results/benchmarks.csv",
    log:
        "results/logs/benchmarks.log",
    conda:
        "../../envs/conda.yaml"
    threads: lambda w: workflow.resource_settings.cores or 1
    params:
        lrmoclip=LRMOCLIP,
    shell:
        "{params.lrmoclip} benchmarks --threads {threads} --out {output} 2> {log}"


rule scaling_plot:
    input:
        rules.benchmarks.output,
    output:
        png="results/figures/scaling.png",
        svg="results/figures/scaling.svg",
    log:
        "results/logs/scaling_plot.log",
    conda:
        "../../envs/conda.yaml"
    params:
        lrmoclip=LRMOCLIP,
    shell:
        "{params.lrmoclip} scaling --table {input} --out {output.png} 2> {log}"
