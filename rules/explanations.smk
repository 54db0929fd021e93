"""Explanations of the smallest autoencoders' latents, offline and by language models, and their
scores.

In: policy, corpus, lexicon, autoencoders, matches, and the latents' shifts where they choose. Out:
below results/{model}/{task}/seed{seed}/explanations/{sae}/, {explainer}.parquet, a row per latent;
excerpts.parquet, held-out excerpts on which each explained latent is and is not active;
histograms.parquet, its activations there; evidence.parquet, the excerpts that a language model is
shown of it; scores/{explainer}.parquet; pages/, index.html and a page of each explained latent.
Answers of services are kept in results/llm_cache/.
"""


rule explanations:
    input:
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("train"),
        held_out=PLAN.corpus("test"),
        lexicon="results/lexicons/{task}.json",
        matches=f"{CELL}/sae/{{sae}}/matches.parquet",
        autoencoders=PLAN.autoencoders,
        shifts=PLAN.choosing_shifts,
    output:
        explanations=f"{CELL}/explanations/{{sae}}/heuristic.parquet",
        excerpts=f"{CELL}/explanations/{{sae}}/excerpts.parquet",
        evidence=f"{CELL}/explanations/{{sae}}/evidence.parquet",
        histograms=f"{CELL}/explanations/{{sae}}/histograms.parquet",
    log:
        log_of(f"{CELL}/explanations/{{sae}}/heuristic"),
    priority: 4
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("explanations"),
    shell:
        MODEL_JOB


rule language_explanations:
    input:
        explanations=f"{CELL}/explanations/{{sae}}/heuristic.parquet",
        evidence=f"{CELL}/explanations/{{sae}}/evidence.parquet",
    output:
        explanations=f"{CELL}/explanations/{{sae}}/{{explainer}}.parquet",
    log:
        log_of(f"{CELL}/explanations/{{sae}}/{{explainer}}"),
    wildcard_constraints:
        explainer=names(GRID.explainers),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 240, api=1),
    params:
        **PLAN.job("language_explanations"),
    shell:
        JOB


rule explanation_scores:
    input:
        explanations=f"{CELL}/explanations/{{sae}}/{{explainer}}.parquet",
        excerpts=f"{CELL}/explanations/{{sae}}/excerpts.parquet",
    output:
        scores=f"{CELL}/explanations/{{sae}}/scores/{{explainer}}.parquet",
    log:
        log_of(f"{CELL}/explanations/{{sae}}/scores/{{explainer}}"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 240, api=PLAN.judges),
    params:
        **PLAN.job("explanation_scores", "scores"),
    shell:
        JOB


rule feature_pages:
    input:
        policy=f"{CELL}/policy",
        autoencoders=PLAN.autoencoders,
        explanations=PLAN.explanations,
        scores=PLAN.scores,
        evidence=f"{CELL}/explanations/{{sae}}/evidence.parquet",
        histograms=f"{CELL}/explanations/{{sae}}/histograms.parquet",
        features=PLAN.compared_features,
        ablation=PLAN.policy_ablation,
        probe=PLAN.probe,
    output:
        pages=directory(f"{CELL}/explanations/{{sae}}/pages"),
    log:
        log_of(f"{CELL}/explanations/{{sae}}/pages"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **PLAN.job("feature_pages"),
    shell:
        JOB
