"""The checkpoint that names the layers, and the place of the lesson in the weights.

In: base and policy, held-out texts and the reward. Out: results/{model}/{task}/seed{seed}/
divergence.json with every layer, every measure, the ranking and the chosen layers, and
locus.parquet with the Shapley values of components and layers.
"""


checkpoint divergence:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        locus=PLAN.locus,
    output:
        divergence=f"{CELL}/divergence.json",
    log:
        log_of(f"{CELL}/divergence"),
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


rule locus:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        lexicon="results/lexicons/{task}.json",
        test=PLAN.corpus("test"),
        classifier=PLAN.classifier,
    output:
        locus=f"{CELL}/locus.parquet",
    log:
        log_of(f"{CELL}/locus"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("locus"),
    shell:
        MODEL_JOB
