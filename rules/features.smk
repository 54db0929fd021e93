"""Contrast triples and every subject's features of them.

In: held-out corpus, lexicon, models, small autoencoders. Out: results/rewrites/{task}.parquet with the answers that a
language-model service wrote for preference tasks that ask for it, results/contrasts/{task}.parquet and
results/{model}/{task}/seed{seed}/features/{sae}/{subject}.safetensors.
"""


rule rewrites:
    input:
        lambda w: f"results/corpora/{GRID.tasks[w.task]['corpus']}/test.parquet",
    output:
        "results/rewrites/{task}.parquet",
    log:
        "results/logs/rewrites/{task}.log",
    benchmark:
        "results/benchmarks/rewrites/{task}.tsv"
    wildcard_constraints:
        task=tasks_by("dpo"),
    conda:
        "../envs/analysis.yaml"
    resources:
        api=1,
        mem_mb=growing(1000),
        runtime=growing(480),
    params:
        settings=lambda w: canonical_json(GRID.rewrite_settings(w.task)),
        code=code("rewrites"),
        cache=lambda w: cache_of(GRID.task_settings("rewrites", w.task).service),
    shell:
        "python -m workflow_scripts.rewrites --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --corpus {input:q} --cache {params.cache:q} --output {output:q}"


rule contrasts:
    input:
        corpus=lambda w: f"results/corpora/{GRID.tasks[w.task]['corpus']}/test.parquet",
        lexicon="results/lexicons/{task}.json",
        rewrites=lambda w: (
            "results/rewrites/{task}.parquet"
            if GRID.contrast_settings(w.task)["source"] == "rewrites"
            else []
        ),
    output:
        "results/contrasts/{task}.parquet",
    log:
        "results/logs/contrasts/{task}.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda w: canonical_json(GRID.contrast_settings(w.task)),
        code=code("contrasts"),
    shell:
        "python -m workflow_scripts.contrasts --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --corpus {input.corpus:q} --lexicon {input.lexicon:q} --rewrites {input.rewrites:q}"
        " --output {output:q}"


rule features:
    input:
        policy=policy_of,
        base="results/models/{model}",
        contrasts="results/contrasts/{task}.parquet",
        autoencoders=autoencoders_of("small"),
    output:
        f"{CELL}/features/{{sae}}/{{subject}}.safetensors",
    log:
        "results/logs/{model}/{task}/seed{seed}/features/{sae}/{subject}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/features/{sae}/{subject}.tsv"
    wildcard_constraints:
        subject="policy|base|untrained|other_seed|other_task",
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("features"),
        code=code("features"),
    shell:
        "python -m workflow_scripts.features --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --subject {wildcards.subject}"
        " --policy {input.policy:q} --base {input.base:q} --contrasts {input.contrasts:q}"
        " --autoencoders {input.autoencoders:q} --output {output:q}"
