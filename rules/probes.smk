"""Probes of the feedback implicit in activations.

In: one subject's features, triples, lexicon. Out:
results/{model}/{task}/seed{seed}/probes/{sae}/{subject}/ with out-of-fold predictions, the
statistics of all test parts, the predictions' gain over word frequency and static embedding, the
probe's weights and its metrics.
"""


rule probes:
    input:
        features=PLAN.features,
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
    output:
        predictions=f"{CELL}/probes/{{sae}}/{{subject}}/predictions.parquet",
        parts=f"{CELL}/probes/{{sae}}/{{subject}}/parts.parquet",
        nested=f"{CELL}/probes/{{sae}}/{{subject}}/nested.parquet",
        probe=f"{CELL}/probes/{{sae}}/{{subject}}/probe.safetensors",
        metrics=f"{CELL}/probes/{{sae}}/{{subject}}/metrics.json",
    log:
        log_of(f"{CELL}/probes/{{sae}}/{{subject}}"),
    conda:
        ANALYSIS
    resources:
        **growing(2000, 60),
    params:
        **PLAN.job("probes"),
    shell:
        JOB
