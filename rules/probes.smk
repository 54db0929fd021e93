"""Probes of the feedback implicit in activations.

In: one subject's features, triples, lexicon. Out: results/{model}/{task}/seed{seed}/probes/{sae}/{subject}/ with
out-of-fold predictions, what they add to word frequency and static embedding, the probe's weights and its metrics.
"""


rule probes:
    input:
        # The controls that read the text alone take their targets, tokens and lengths from the policy's file.
        features=lambda w: f"{CELL}/features/{{sae}}/{'policy' if w.subject == 'text' else w.subject}.safetensors",
        contrasts="results/contrasts/{task}.parquet",
        lexicon="results/lexicons/{task}.json",
    output:
        predictions=f"{CELL}/probes/{{sae}}/{{subject}}/predictions.parquet",
        nested=f"{CELL}/probes/{{sae}}/{{subject}}/nested.parquet",
        probe=f"{CELL}/probes/{{sae}}/{{subject}}/probe.safetensors",
        metrics=f"{CELL}/probes/{{sae}}/{{subject}}/metrics.json",
    log:
        "results/logs/{model}/{task}/seed{seed}/probes/{sae}/{subject}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/probes/{sae}/{subject}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=settings("probes"),
        code=code("probes"),
    shell:
        "python -m workflow_scripts.probes --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --log {log:q} --features {input.features:q} --contrasts {input.contrasts:q}"
        " --lexicon {input.lexicon:q} --subject {wildcards.subject} --predictions {output.predictions:q}"
        " --nested {output.nested:q} --probe {output.probe:q} --metrics {output.metrics:q}"
