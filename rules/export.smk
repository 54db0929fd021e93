"""What other tools open: features as delphi's cache, explanations as Neuronpedia's JSON lines.

In: policy, corpus, small autoencoders, explanations. Out: results/exports/{model}/{task}/seed{seed}/{sae}/ with
delphi/latents/{hook}/ and explanations.jsonl. The autoencoders' own directories are SAELens's.
"""


rule export:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_file("test"),
        autoencoders=autoencoders_of("small"),
        explanations=lambda w: [
            f"{CELL}/explanations/{{sae}}/{name}.parquet".format(**w)
            for name in cell_of(w).explainers
        ],
    output:
        directory("results/exports/{model}/{task}/seed{seed}/{sae}"),
    log:
        "results/logs/exports/{model}/{task}/seed{seed}/{sae}.log",
    benchmark:
        "results/benchmarks/exports/{model}/{task}/seed{seed}/{sae}.tsv"
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("export"),
        code=code("export"),
    shell:
        "python -m workflow_scripts.export --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q}"
        " --name {wildcards.model}/{wildcards.task}/seed{wildcards.seed}/{wildcards.sae} --policy {input.policy:q}"
        " --corpus {input.corpus:q} --autoencoders {input.autoencoders:q} --explanations {input.explanations:q}"
        " --output {output:q}"
