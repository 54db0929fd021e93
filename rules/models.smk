"""Base checkpoints, corpora and the lexicons of tasks: from the hub, from a path, or grown here.

In: the configuration. Out: results/corpora/{corpus}/{split}.parquet with counts.json, results/models/{model}/,
results/lexicons/{task}.json with the feedback, and {task}.truth.json with what was planted in it.
"""


localrules:
    copy_corpus,
    copy_model,
    fetch_corpus,
    fetch_model,


rule generate_corpus:
    output:
        train="results/corpora/{corpus}/train.parquet",
        test="results/corpora/{corpus}/test.parquet",
        counts="results/corpora/{corpus}/counts.json",
    log:
        "results/logs/corpora/{corpus}.log",
    benchmark:
        "results/benchmarks/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=sources(GRID.corpora, "organism"),
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    params:
        settings=lambda w: canonical_json(GRID.corpora[w.corpus]),
        code=code("generate_corpus"),
    shell:
        "python -m workflow_scripts.generate_corpus --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --train {output.train:q} --test {output.test:q} --counts {output.counts:q}"


rule copy_corpus:
    output:
        train="results/corpora/{corpus}/train.parquet",
        test="results/corpora/{corpus}/test.parquet",
        counts="results/corpora/{corpus}/counts.json",
    log:
        "results/logs/corpora/{corpus}.log",
    benchmark:
        "results/benchmarks/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=sources(GRID.corpora, "path"),
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda w: canonical_json(GRID.corpora[w.corpus]),
        code=code("copy_corpus"),
    shell:
        "python -m workflow_scripts.copy_corpus --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --train {output.train:q} --test {output.test:q} --counts {output.counts:q}"


rule fetch_corpus:
    output:
        train="results/corpora/{corpus}/train.parquet",
        test="results/corpora/{corpus}/test.parquet",
        counts="results/corpora/{corpus}/counts.json",
    log:
        "results/logs/corpora/{corpus}.log",
    benchmark:
        "results/benchmarks/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=sources(GRID.corpora, "hub"),
    retries: 2
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=lambda w: canonical_json(GRID.corpora[w.corpus]),
        code=code("fetch_corpus"),
    shell:
        "python -m workflow_scripts.fetch_corpus --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --train {output.train:q} --test {output.test:q} --counts {output.counts:q}"


rule pretrain_model:
    input:
        train=lambda w: [
            f"results/corpora/{c}/train.parquet"
            for c in GRID.models[w.model]["organism"]["corpora"]
        ],
        test=lambda w: [
            f"results/corpora/{c}/test.parquet"
            for c in GRID.models[w.model]["organism"]["corpora"]
        ],
    output:
        directory("results/models/{model}"),
    log:
        "results/logs/models/{model}.log",
    benchmark:
        "results/benchmarks/models/{model}.tsv"
    wildcard_constraints:
        model=sources(GRID.models, "organism"),
    priority: 10
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=model_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=lambda w: canonical_json(GRID.models[w.model]["organism"]),
        code=code("pretrain_model"),
    shell:
        "python -m workflow_scripts.pretrain_model --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q}"
        " --train {input.train:q} --test {input.test:q} --output {output:q}"


rule fetch_model:
    output:
        directory("results/models/{model}"),
    log:
        "results/logs/models/{model}.log",
    wildcard_constraints:
        model=sources(GRID.checkpoints, "hub"),
    retries: 2
    conda:
        "../envs/model.yaml"
    params:
        settings=lambda w: canonical_json(
            {k: GRID.checkpoints[w.model][k] for k in ("hub", "revision")}
        ),
        code=code("fetch_model"),
    shell:
        "python -m workflow_scripts.fetch_model --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --output {output:q}"


rule copy_model:
    output:
        directory("results/models/{model}"),
    log:
        "results/logs/models/{model}.log",
    wildcard_constraints:
        model=sources(GRID.checkpoints, "path"),
    conda:
        "../envs/analysis.yaml"
    params:
        settings=lambda w: canonical_json({"path": GRID.checkpoints[w.model]["path"]}),
        code=code("copy_model"),
    shell:
        "python -m workflow_scripts.copy_model --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --output {output:q}"


rule lexicon:
    input:
        corpus=lambda w: f"results/corpora/{GRID.tasks[w.task]['corpus']}/train.parquet",
    output:
        lexicon="results/lexicons/{task}.json",
        truth="results/lexicons/{task}.truth.json",
    log:
        "results/logs/lexicons/{task}.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        settings=lambda w: canonical_json(GRID.feedback_settings(w.task)),
        code=code("lexicon"),
    shell:
        "python -m workflow_scripts.lexicon --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --corpus {input.corpus:q} --lexicon {output.lexicon:q} --truth {output.truth:q}"
