"""Probes of the feedback implicit in activations.

In: one subject's features, triples, lexicon. Out: results/{model}/{task}/seed{seed}/probes/{sae}/{subject}/
with out-of-fold predictions, their gain over word frequency and static embedding, the probe's
weights and its metrics.
"""

PROBES = CELL + "/probes/{sae}/{subject}"


def probed_features(wildcards):
    """The features of a subject. Controls that read the text alone take their targets, tokens and
    lengths from the policy's.
    """
    subject = wildcards.subject if SUBJECTS[wildcards.subject].load else "policy"
    return f"{CELL}/features/{{sae}}/{subject}.safetensors"


rule probes:
    input:
        features=probed_features,
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
    output:
        predictions=f"{PROBES}/predictions.parquet",
        nested=f"{PROBES}/nested.parquet",
        probe=f"{PROBES}/probe.safetensors",
        metrics=f"{PROBES}/metrics.json",
    log:
        log_of(PROBES),
    benchmark:
        benchmark_of(PROBES)
    conda:
        ANALYSIS
    resources:
        **growing(2000, 60),
    params:
        **job("probes", of_cell("probes")),
    shell:
        JOB
