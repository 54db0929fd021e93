"""Readouts of what feedback changed, of the policy against its base, and what the change is.

In: base, policy, held-out texts, contrast triples, and the lexicon, which one readout and the
reward call for. Out: results/{model}/{task}/seed{seed}/change/readings.parquet, and for cells with
doses or strengths doses.parquet and vectors.parquet beside it. For cells with dictionaries of what
is written to the residual stream, latents/{sae}/choice.parquet and shifts.parquet.
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
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("change"),
    shell:
        MODEL_JOB


rule account:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        lexicon="results/lexicons/{task}.json",
        test=PLAN.corpus("test"),
        classifier=PLAN.classifier,
    output:
        doses=f"{CELL}/change/doses.parquet",
        vectors=f"{CELL}/change/vectors.parquet",
    log:
        log_of(f"{CELL}/change/account"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("account"),
    shell:
        MODEL_JOB


rule choice_latents:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
        autoencoders=PLAN.autoencoders,
    output:
        choice=f"{CELL}/latents/{{sae}}/choice.parquet",
        shifts=f"{CELL}/latents/{{sae}}/shifts.parquet",
    log:
        log_of(f"{CELL}/latents/{{sae}}"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("choice_latents"),
    shell:
        MODEL_JOB
