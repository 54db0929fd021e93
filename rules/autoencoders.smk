"""Activations of the chosen layers, autoencoders of several sizes on them, and what these are
worth.

In: policy or base, corpus, divergence. Out: below results/{model}/{task}/seed{seed}/,
activations/{site}/ of the policy; sae/{sae}/layer{layer}/ with a folder in SAELens's layout for
each size; matches.parquet, metrics.json and curves.parquet beside the layers. Activations of the
base are shared by all cells of a model and corpus:
results/{model}/base/{corpus}/activations/{site}/. Variants that read both models have those of the
base on the policy's tokens, activations/base/{site}/ below the cell, and feature_diff.parquet
beside the layers. For cells that ask for it, evaluation.json and sparse_probes.parquet beside
the metrics. Dictionaries from elsewhere are taken once: results/dictionaries/{sae}/layer{layer}/.
"""


localrules:
    copy_dictionary,
    fetch_dictionary,


rule activations:
    input:
        choice=[] if GRID.config["keep_activations"] else f"{CELL}/divergence.json",
        model=f"{CELL}/policy",
        corpus=PLAN.read_corpus,
    output:
        activations=kept(f"{CELL}/activations/{{site}}"),
    log:
        log_of(f"{CELL}/activations/{{site}}"),
    priority: 7
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("activations", layers=PLAN.harvested_layers, site=lambda w: w.site),
    shell:
        MODEL_JOB


use rule activations as base_activations with:
    input:
        choice=PLAN.base_choices,
        model="results/models/{model}",
        corpus=PLAN.base_corpus,
    output:
        activations=kept("results/{model}/base/{corpus}/activations/{site}"),
    log:
        log_of("results/{model}/base/{corpus}/activations/{site}"),
    params:
        **job("activations", PLAN.base_settings),


use rule activations as paired_activations with:
    input:
        choice=[] if GRID.config["keep_activations"] else f"{CELL}/divergence.json",
        model="results/models/{model}",
        corpus=PLAN.read_corpus,
    output:
        activations=kept(f"{CELL}/activations/base/{{site}}"),
    log:
        log_of(f"{CELL}/activations/base/{{site}}"),


rule copy_dictionary:
    output:
        dictionary=directory("results/dictionaries/{sae}/layer{layer}"),
    log:
        log_of("results/dictionaries/{sae}/layer{layer}"),
    wildcard_constraints:
        sae=names(GRID.dictionaries_from("path")),
    conda:
        MODEL
    params:
        **job("copy_dictionary", PLAN.taken_dictionary, PLAN.code("copy_dictionary")),
    shell:
        JOB


use rule copy_dictionary as fetch_dictionary with:
    wildcard_constraints:
        sae=names(GRID.dictionaries_from("hub")),
    retries: 2
    params:
        **job(
            "fetch_dictionary",
            PLAN.taken_dictionary,
            PLAN.code("fetch_dictionary"),
            launcher=ALONE,
        ),


rule autoencoders:
    input:
        activations=PLAN.activations,
        base=PLAN.paired_activations,
        dictionary=PLAN.dictionary,
    output:
        layer=directory(f"{CELL}/sae/{{sae}}/layer{{layer}}"),
    log:
        log_of(f"{CELL}/sae/{{sae}}/layer{{layer}}"),
    priority: 6
    conda:
        MODEL
    resources:
        **growing(2000, 60, gpu=PLAN.gpus),
    params:
        **PLAN.job("autoencoders"),
    shell:
        MODEL_JOB


use rule autoencoders as null_autoencoders with:
    output:
        layer=directory(f"{CELL}/sae/{{sae}}/null/layer{{layer}}"),
    log:
        log_of(f"{CELL}/sae/{{sae}}/null/layer{{layer}}"),
    params:
        **PLAN.job(
            "autoencoders",
            sizes=PLAN.first_size,
            other_seed=lambda w: False,
            shuffled=lambda w: True,
        ),


rule evaluate_autoencoders:
    input:
        model=PLAN.read_model,
        base=PLAN.compared_model,
        corpus=PLAN.read_corpus,
        held_out=PLAN.corpus("test"),
        contrasted=PLAN.contrasted,
        autoencoders=PLAN.trained_autoencoders,
    output:
        matches=f"{CELL}/sae/{{sae}}/matches.parquet",
        metrics=f"{CELL}/sae/{{sae}}/metrics.json",
        curves=f"{CELL}/sae/{{sae}}/curves.parquet",
    log:
        log_of(f"{CELL}/sae/{{sae}}/evaluate"),
    priority: 5
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("evaluate_autoencoders", "activations"),
    shell:
        MODEL_JOB


rule evaluate_dictionaries:
    input:
        model=PLAN.read_model,
        corpus=PLAN.read_corpus,
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
        autoencoders=PLAN.autoencoders,
    output:
        evaluation=f"{CELL}/sae/{{sae}}/evaluation.json",
        probes=f"{CELL}/sae/{{sae}}/sparse_probes.parquet",
    log:
        log_of(f"{CELL}/sae/{{sae}}/dictionaries"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("evaluate_dictionaries", "evaluation"),
    shell:
        MODEL_JOB


rule feature_diff:
    input:
        policy=f"{CELL}/policy",
        activations=PLAN.compared_activations,
        autoencoders=PLAN.autoencoders,
        nulls=PLAN.null_autoencoders,
        base_autoencoders=PLAN.base_autoencoders,
    output:
        latents=f"{CELL}/sae/{{sae}}/feature_diff.parquet",
    log:
        log_of(f"{CELL}/sae/{{sae}}/feature_diff"),
    conda:
        MODEL
    resources:
        **growing(2000, 60),
    params:
        **PLAN.job("feature_diff"),
    shell:
        JOB


rule dictionary_transfer:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=PLAN.read_corpus,
        autoencoders=PLAN.trained_autoencoders,
    output:
        texts=f"{CELL}/sae/{{sae}}/transfer.parquet",
    log:
        log_of(f"{CELL}/sae/{{sae}}/transfer"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("dictionary_transfer", "activations"),
    shell:
        MODEL_JOB


rule head_shares:
    input:
        model="results/models/{model}",
        autoencoders=PLAN.trained_autoencoders,
    output:
        shares=f"{CELL}/sae/{{sae}}/head_shares.parquet",
    log:
        log_of(f"{CELL}/sae/{{sae}}/head_shares"),
    conda:
        MODEL
    resources:
        **growing(2000, 30),
    params:
        **PLAN.job("head_shares"),
    shell:
        JOB
