"""The cost of the grid before it runs: results/estimate.csv, a row per stage of every cell."""


localrules:
    estimate,


rule estimate:
    output:
        estimate="results/estimate.csv",
    log:
        log_of("results/estimate"),
    conda:
        ANALYSIS
    params:
        **job("estimate", lambda w: GRID.estimate_settings()),
    shell:
        JOB
