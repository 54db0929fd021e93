"""Contrast triples and every subject's features of them.

In: held-out corpus, lexicon, models, smallest autoencoders. Out: results/rewrites/{task}.parquet with
the answers that a language-model service wrote for preference tasks that ask for it,
results/contrasts/{task}.parquet and results/{model}/{task}/seed{seed}/features/{sae}/{subject}.safetensors.
"""

FEATURES = CELL + "/features/{sae}/{subject}"


def held_out(wildcards):
    """The held-out texts of a task."""
    return f"results/corpora/{GRID.tasks[wildcards.task]['corpus']}/test.parquet"


def rewrites_of(wildcards):
    """The rewrites of a task, where its triples are made of them."""
    rewritten = GRID.contrast_settings(wildcards.task)["source"] == "rewrites"
    return "results/rewrites/{task}.parquet" if rewritten else []


rule rewrites:
    input:
        corpus=held_out,
    output:
        rewrites="results/rewrites/{task}.parquet",
    log:
        log_of("results/rewrites/{task}"),
    benchmark:
        benchmark_of("results/rewrites/{task}")
    wildcard_constraints:
        task=names(GRID.tasks_of("preference")),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 480, api=1),
    params:
        **job("rewrites", lambda w: GRID.rewrite_settings(w.task)),
    shell:
        JOB


rule contrasts:
    input:
        corpus=held_out,
        lexicon="results/lexicons/{task}.json",
        rewrites=rewrites_of,
    output:
        contrasts="results/contrasts/{task}.parquet",
    log:
        log_of("results/contrasts/{task}"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **job("contrasts", lambda w: GRID.contrast_settings(w.task)),
    shell:
        JOB


rule features:
    input:
        policy=policy_of,
        base="results/models/{model}",
        contrasts="results/contrasts/{task}.parquet",
        autoencoders=probed_autoencoders,
    output:
        features=f"{FEATURES}.safetensors",
    log:
        log_of(FEATURES),
    benchmark:
        benchmark_of(FEATURES)
    wildcard_constraints:
        subject=names(name for name, subject in SUBJECTS.items() if subject.load),
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("features", of_cell("features")),
    shell:
        MODEL_JOB
