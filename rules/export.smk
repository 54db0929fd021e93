"""What other tools open: latents as delphi's cache, explanations as Neuronpedia's JSON lines.

In: policy, corpus, smallest autoencoders, explanations. Out: results/exports/{model}/{task}/seed{seed}/{sae}/
with delphi/latents/{hook}/ and explanations.jsonl. The autoencoders' own directories are SAELens's.
"""

EXPORT = "results/exports/{model}/{task}/seed{seed}/{sae}"


def all_explanations(wildcards):
    """The explanations of a job's cell by all its explainers."""
    folder = f"{CELL}/explanations/{wildcards.sae}"
    return [f"{folder}/{name}.parquet" for name in cell_of(wildcards).explainers]


rule export:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_of("test"),
        autoencoders=probed_autoencoders,
        explanations=all_explanations,
    output:
        export=directory(EXPORT),
    log:
        log_of(EXPORT),
    benchmark:
        benchmark_of(EXPORT)
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("export", of_cell("export")),
    shell:
        MODEL_JOB
