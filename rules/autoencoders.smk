"""Activations of the chosen layers, autoencoders of several sizes on them, and what these are worth.

In: policy or base, corpus, divergence. Out: below results/{model}/{task}/seed{seed}/, activations/{site}/
of the policy; sae/{sae}/layer{layer}/ with a folder in SAELens's layout for each size; matches.parquet
and metrics.json beside the layers. Activations of the base are shared by all cells of a model and
corpus: results/{model}/base/{corpus}/activations/{site}/.
"""

VARIANT = CELL + "/sae/{sae}"
SHARED = "results/{model}/base/{corpus}/activations/{site}"


def kept(path):
    """Activations stay, or go when their autoencoders are trained."""
    return directory(path) if KEPT else temp(directory(path))


def harvested_layers(wildcards):
    """Layers whose activations are harvested: all where they are kept, so that a layer chosen later
    finds its own.
    """
    cell = cell_of(wildcards)
    return (
        list(range(GRID.n_layers(cell.model))) if KEPT else trained_layers(cell, cell.main)
    )


def shared_layers(wildcards):
    """Layers of the base that are harvested: all, or those that any cell trains on."""
    if KEPT:
        return list(range(GRID.n_layers(wildcards.model)))
    users = GRID.readers_of_base(wildcards.model, wildcards.corpus)
    return sorted({layer for cell, sae in users for layer in trained_layers(cell, sae)})


def activations_of(wildcards):
    """The activations that a variant learns from."""
    settings = GRID.autoencoder_settings(cell_of(wildcards), wildcards.sae)
    if settings.reads == "policy":
        return f"{CELL}/activations/{settings.site}"
    corpus = GRID.tasks[wildcards.task]["corpus"]
    return f"results/{wildcards.model}/base/{corpus}/activations/{settings.site}"


rule activations:
    input:
        choice=[] if KEPT else f"{CELL}/divergence.json",
        model=f"{CELL}/policy",
        corpus=corpus_of(read_split),
    output:
        activations=kept(CELL + "/activations/{site}"),
    log:
        log_of(CELL + "/activations/{site}"),
    benchmark:
        benchmark_of(CELL + "/activations/{site}")
    priority: 7
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("activations", of_cell("activations", layers=harvested_layers)),
    shell:
        MODEL_JOB


use rule activations as base_activations with:
    input:
        model="results/models/{model}",
        corpus=lambda w: (
            f"results/corpora/{w.corpus}/{GRID.base_activations(w.model, w.corpus)['split']}.parquet"
        ),
    output:
        activations=kept(SHARED),
    log:
        log_of(SHARED),
    benchmark:
        benchmark_of(SHARED)
    params:
        **job(
            "activations",
            lambda w: GRID.base_activations(w.model, w.corpus)
            | {"layers": shared_layers(w), "site": w.site},
        ),


rule autoencoders:
    input:
        activations=activations_of,
    output:
        layer=directory(VARIANT + "/layer{layer}"),
    log:
        log_of(VARIANT + "/layer{layer}"),
    benchmark:
        benchmark_of(VARIANT + "/layer{layer}")
    priority: 6
    conda:
        MODEL
    resources:
        **growing(2000, 60, gpu=model_gpus),
    params:
        **job("autoencoders", of_cell("autoencoders")),
    shell:
        MODEL_JOB


rule evaluate_autoencoders:
    input:
        model=read_model,
        corpus=corpus_of(read_split),
        autoencoders=autoencoders_of(trained_layers),
    output:
        matches=VARIANT + "/matches.parquet",
        metrics=VARIANT + "/metrics.json",
    log:
        log_of(VARIANT + "/evaluate"),
    benchmark:
        benchmark_of(VARIANT + "/evaluate")
    priority: 5
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("evaluate_autoencoders", of_cell("activations")),
    shell:
        MODEL_JOB
