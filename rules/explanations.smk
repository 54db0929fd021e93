"""Explanations of the small autoencoders' features, offline by a labelled heuristic.

In: policy, training corpus, lexicon, small autoencoders, matches. Out:
results/{model}/{task}/seed{seed}/explanations/{sae}/{explainer}.parquet, a row per feature.
"""


rule explanations:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_file("train"),
        lexicon="results/lexicons/{task}.json",
        matches=f"{CELL}/sae/{{sae}}/matches.parquet",
        autoencoders=autoencoders_of("small"),
    output:
        f"{CELL}/explanations/{{sae}}/heuristic.parquet",
    log:
        "results/logs/{model}/{task}/seed{seed}/explanations/{sae}/heuristic.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/explanations/{sae}/heuristic.tsv"
    priority: 4
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("explanations"),
        code=code("explanations"),
    shell:
        "python -m workflow_scripts.explanations --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --policy {input.policy:q}"
        " --corpus {input.corpus:q} --lexicon {input.lexicon:q} --matches {input.matches:q}"
        " --autoencoders {input.autoencoders:q} --output {output:q}"
