"""Interventions on sets of latents, one job per model that is changed.

In: base, policy, held-out corpus, lexicon, smallest autoencoders, explanations, the policy's probe.
Out: results/{model}/{task}/seed{seed}/interventions/{sae}/{subject}.parquet, a row per intervention
and prompt, and below {subject}/ the losses on neutral texts, a row per set with what its latents do
together and alone, the effects of single latents, interactions of pairs, and edges of a circuit.
"""


rule interventions:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=PLAN.related,
        probe=PLAN.selecting_probe,
        autoencoders=PLAN.autoencoders,
        classifier=PLAN.classifier,
    output:
        completions=f"{CELL}/interventions/{{sae}}/{{subject}}.parquet",
        neutral=f"{CELL}/interventions/{{sae}}/{{subject}}/neutral.parquet",
        sets=f"{CELL}/interventions/{{sae}}/{{subject}}/sets.parquet",
        effects=f"{CELL}/interventions/{{sae}}/{{subject}}/effects.parquet",
        interactions=f"{CELL}/interventions/{{sae}}/{{subject}}/interactions.parquet",
        circuit=f"{CELL}/interventions/{{sae}}/{{subject}}/circuit.parquet",
    log:
        log_of(f"{CELL}/interventions/{{sae}}/{{subject}}"),
    wildcard_constraints:
        subject="policy|base",
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("interventions"),
    shell:
        MODEL_JOB


rule steering:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=PLAN.related,
        probe=PLAN.steering_probe,
        autoencoders=PLAN.autoencoders,
        classifier=PLAN.classifier,
    output:
        completions=f"{CELL}/steering/{{sae}}/completions.parquet",
        neutral=f"{CELL}/steering/{{sae}}/neutral.parquet",
        strengths=f"{CELL}/steering/{{sae}}/strengths.parquet",
        cleaning=f"{CELL}/steering/{{sae}}/cleaning.parquet",
    log:
        log_of(f"{CELL}/steering/{{sae}}"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("steering"),
    shell:
        MODEL_JOB
