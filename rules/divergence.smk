"""The checkpoint that names the layers.

In: base and policy. Out: results/{model}/{task}/seed{seed}/divergence.json with every layer, every
measure, the ranking and the chosen layers.
"""


checkpoint divergence:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
    output:
        divergence=f"{CELL}/divergence.json",
    log:
        log_of(f"{CELL}/divergence"),
    benchmark:
        benchmark_of(f"{CELL}/divergence")
    priority: 8
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("divergence"),
    shell:
        MODEL_JOB
