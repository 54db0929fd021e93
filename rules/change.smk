"""Readouts of what feedback changed, of the policy against its base.

In: base, policy, held-out texts, contrast triples and the lexicon, which one readout calls for.
Out: results/{model}/{task}/seed{seed}/change/readings.parquet.
"""


rule change:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
    output:
        readings=f"{CELL}/change/readings.parquet",
    log:
        log_of(f"{CELL}/change/readings"),
    benchmark:
        benchmark_of(f"{CELL}/change/readings")
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("change"),
    shell:
        MODEL_JOB
