"""Ablation of features during generation, one job per arm.

In: policy, held-out corpus, lexicon, small autoencoders, explanations. Out:
results/{model}/{task}/seed{seed}/ablation/{sae}/{arm}.parquet, a row per prompt and draw.
"""


rule ablation:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_file("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=f"{CELL}/explanations/{{sae}}/heuristic.parquet",
        autoencoders=autoencoders_of("small"),
    output:
        f"{CELL}/ablation/{{sae}}/{{arm}}.parquet",
    log:
        "results/logs/{model}/{task}/seed{seed}/ablation/{sae}/{arm}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/ablation/{sae}/{arm}.tsv"
    priority: 3
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("ablation"),
        code=code("ablation"),
    shell:
        "python -m workflow_scripts.ablation --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --arm {wildcards.arm}"
        " --policy {input.policy:q} --corpus {input.corpus:q} --lexicon {input.lexicon:q}"
        " --explanations {input.explanations:q} --autoencoders {input.autoencoders:q} --output {output:q}"
