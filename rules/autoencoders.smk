"""Activations of the chosen layers, autoencoder pairs on them, and what the pairs are worth.

In: policy, corpus, divergence. Out: results/{model}/{task}/seed{seed}/sae/{sae}/layer{layer}/{small,large}/ in the
SAELens layout, and matches.parquet and metrics.json beside the layers.
"""


rule activations:
    input:
        choice=[] if GRID.config["keep_activations"] else f"{CELL}/divergence.json",
        policy=f"{CELL}/policy",
        corpus=corpus_file(lambda cell: cell.settings["activations"].split),
    output:
        ACTIVATIONS,
    log:
        "results/logs/{model}/{task}/seed{seed}/activations.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/activations.tsv"
    priority: 7
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("activations"),
        code=code("activations"),
        layers=harvested_layers,
    shell:
        "python -m workflow_scripts.activations --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --policy {input.policy:q}"
        " --corpus {input.corpus:q} --layers {params.layers} --output {output:q}"


rule autoencoders:
    input:
        activations=f"{CELL}/activations",
    output:
        small=directory(f"{CELL}/sae/{{sae}}/layer{{layer}}/small"),
        large=directory(f"{CELL}/sae/{{sae}}/layer{{layer}}/large"),
    log:
        "results/logs/{model}/{task}/seed{seed}/sae/{sae}/layer{layer}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/sae/{sae}/layer{layer}.tsv"
    priority: 6
    conda:
        "../envs/model.yaml"
    resources:
        gpu=model_gpus,
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=settings("autoencoders"),
        code=code("autoencoders"),
    shell:
        "python -m workflow_scripts.autoencoders --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --activations {input.activations:q}"
        " --layer {wildcards.layer} --small {output.small:q} --large {output.large:q}"


rule evaluate_autoencoders:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_file(lambda cell: cell.settings["activations"].split),
        small=autoencoders_of("small", lambda w: trained_layers(w, w.sae)),
        large=autoencoders_of("large", lambda w: trained_layers(w, w.sae)),
    output:
        matches=f"{CELL}/sae/{{sae}}/matches.parquet",
        metrics=f"{CELL}/sae/{{sae}}/metrics.json",
    log:
        "results/logs/{model}/{task}/seed{seed}/sae/{sae}/evaluate.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/sae/{sae}/evaluate.tsv"
    priority: 5
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("activations"),
        code=code("evaluate_autoencoders"),
    shell:
        "python -m workflow_scripts.evaluate_autoencoders --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --policy {input.policy:q}"
        " --corpus {input.corpus:q} --small {input.small:q} --large {input.large:q}"
        " --matches {output.matches:q} --metrics {output.metrics:q}"
