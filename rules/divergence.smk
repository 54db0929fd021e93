"""The checkpoint that names the layers.

In: base and policy. Out: results/{model}/{task}/seed{seed}/divergence.json with every layer, every measure, the
ranking and the chosen layers.
"""


checkpoint divergence:
    input:
        base="results/models/{model}",
        policy=f"{CELL}/policy",
        corpus=corpus_file("test"),
    output:
        f"{CELL}/divergence.json",
    log:
        "results/logs/{model}/{task}/seed{seed}/divergence.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/divergence.tsv"
    priority: 8
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("divergence"),
        code=code("divergence"),
    shell:
        "python -m workflow_scripts.divergence --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --base {input.base:q}"
        " --policy {input.policy:q} --corpus {input.corpus:q} --output {output:q}"
