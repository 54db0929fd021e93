"""Contrast triples and every subject's features of them.

In: held-out corpus, lexicon, models, smallest autoencoders. Out: results/rewrites/{task}.parquet
with the answers that a language-model service wrote for preference tasks that ask for it,
results/contrasts/{task}.parquet and
results/{model}/{task}/seed{seed}/features/{sae}/{subject}.safetensors.
"""


rule rewrites:
    input:
        corpus=PLAN.corpus("test"),
    output:
        rewrites="results/rewrites/{task}.parquet",
    log:
        log_of("results/rewrites/{task}"),
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
        corpus=PLAN.contrasted,
        lexicon="results/lexicons/{task}.json",
        rewrites=PLAN.rewrites,
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
        policy=PLAN.policy,
        base="results/models/{model}",
        contrasts="results/contrasts/{task}.parquet",
        autoencoders=PLAN.autoencoders,
    output:
        features=f"{CELL}/features/{{sae}}/{{subject}}.safetensors",
    log:
        log_of(f"{CELL}/features/{{sae}}/{{subject}}"),
    wildcard_constraints:
        subject=names(name for name, subject in SUBJECTS.items() if subject.load),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("features"),
    shell:
        MODEL_JOB
