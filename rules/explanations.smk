"""Explanations of the smallest autoencoders' latents, offline and by language models, and their scores.

In: policy, corpus, lexicon, autoencoders, matches. Out: below results/{model}/{task}/seed{seed}/explanations/{sae}/,
{explainer}.parquet, a row per latent; excerpts.parquet, held-out excerpts on which each explained
latent is and is not active; evidence.parquet, the excerpts that a language model is shown of it;
scores/{explainer}.parquet. Answers of services are kept in results/llm_cache/.
"""

EXPLAINED = CELL + "/explanations/{sae}"


rule explanations:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_of("train"),
        held_out=corpus_of("test"),
        lexicon="results/lexicons/{task}.json",
        matches=CELL + "/sae/{sae}/matches.parquet",
        autoencoders=probed_autoencoders,
    output:
        explanations=f"{EXPLAINED}/heuristic.parquet",
        excerpts=f"{EXPLAINED}/excerpts.parquet",
        evidence=f"{EXPLAINED}/evidence.parquet",
    log:
        log_of(f"{EXPLAINED}/heuristic"),
    benchmark:
        benchmark_of(f"{EXPLAINED}/heuristic")
    priority: 4
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("explanations", of_cell("explanations")),
    shell:
        MODEL_JOB


rule language_explanations:
    input:
        explanations=f"{EXPLAINED}/heuristic.parquet",
        evidence=f"{EXPLAINED}/evidence.parquet",
    output:
        explanations=EXPLAINED + "/{explainer}.parquet",
    log:
        log_of(EXPLAINED + "/{explainer}"),
    benchmark:
        benchmark_of(EXPLAINED + "/{explainer}")
    wildcard_constraints:
        explainer=names(GRID.explainers),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 240, api=1),
    params:
        **job("language_explanations", of_cell("language_explanations")),
    shell:
        JOB


rule explanation_scores:
    input:
        explanations=EXPLAINED + "/{explainer}.parquet",
        excerpts=f"{EXPLAINED}/excerpts.parquet",
    output:
        scores=EXPLAINED + "/scores/{explainer}.parquet",
    log:
        log_of(EXPLAINED + "/scores/{explainer}"),
    benchmark:
        benchmark_of(EXPLAINED + "/scores/{explainer}")
    conda:
        ANALYSIS
    resources:
        **growing(1000, 240, api=lambda w: 1 if cell_of(w).settings["explanations"].judge else 0),
    params:
        **job("explanation_scores", of_cell("scores")),
    shell:
        JOB
