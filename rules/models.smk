"""Base checkpoints, corpora and the lexicons of tasks: from the hub, from a path, or generated
here.

In: the configuration. Out: results/corpora/{corpus}/{split}.parquet with counts.json,
results/models/{model}/, results/lexicons/{task}.json with the feedback, and {task}.truth.json with
what was planted in it.
"""


localrules:
    copy_corpus,
    copy_model,
    fetch_corpus,
    fetch_model,


rule generate_corpus:
    output:
        train="results/corpora/{corpus}/train.parquet",
        test="results/corpora/{corpus}/test.parquet",
        counts="results/corpora/{corpus}/counts.json",
    log:
        log_of("results/corpora/{corpus}"),
    wildcard_constraints:
        corpus=PLAN.from_source(GRID.corpora, "organism"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 60),
    params:
        **job("generate_corpus", lambda w: GRID.corpora[w.corpus]),
    shell:
        JOB


use rule generate_corpus as copy_corpus with:
    wildcard_constraints:
        corpus=PLAN.from_source(GRID.corpora, "path"),
    resources:
        **growing(4000, 60),
    params:
        **job("copy_corpus", PLAN.copied_corpus),


use rule generate_corpus as fetch_corpus with:
    wildcard_constraints:
        corpus=PLAN.from_source(GRID.corpora, "hub"),
    retries: 2
    conda:
        MODEL
    resources:
        **growing(4000, 60),
    params:
        **job("fetch_corpus", lambda w: GRID.corpora[w.corpus], launcher=ALONE),


rule pretrain_model:
    input:
        train=PLAN.grown_from("train"),
        test=PLAN.grown_from("test"),
    output:
        model=directory("results/models/{model}"),
    log:
        log_of("results/models/{model}"),
    wildcard_constraints:
        model=PLAN.from_source(GRID.models, "organism"),
    priority: 10
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **job("pretrain_model", PLAN.organism),
    shell:
        MODEL_JOB


rule copy_model:
    output:
        model=directory("results/models/{model}"),
    log:
        log_of("results/models/{model}"),
    wildcard_constraints:
        model=PLAN.from_source(GRID.checkpoints, "path"),
    conda:
        MODEL
    params:
        **job("copy_model", PLAN.copied_model),
    shell:
        JOB


use rule copy_model as fetch_model with:
    wildcard_constraints:
        model=PLAN.from_source(GRID.checkpoints, "hub"),
    retries: 2
    params:
        **job("fetch_model", PLAN.fetched_model, launcher=ALONE),


rule lexicon:
    input:
        corpus=PLAN.corpus("train"),
    output:
        lexicon="results/lexicons/{task}.json",
        truth="results/lexicons/{task}.truth.json",
    log:
        log_of("results/lexicons/{task}"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **job("lexicon", lambda w: GRID.feedback_settings(w.task), PLAN.code("lexicon")),
    shell:
        JOB
