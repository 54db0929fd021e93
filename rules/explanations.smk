"""Explanations of the small autoencoders' features, offline and by language models, and how well they predict.

In: policy, corpus, lexicon, small autoencoders, matches. Out: below results/{model}/{task}/seed{seed}/,
explanations/{sae}/{explainer}.parquet, a row per feature; explanations/{sae}/excerpts.parquet, held-out excerpts on
which each explained feature is and is not active, and evidence.parquet, what a language model is shown of it;
explanations/{sae}/scores/{explainer}.parquet. Answers of services are kept in results/llm_cache/.
"""


rule explanations:
    input:
        policy=f"{CELL}/policy",
        corpus=corpus_file("train"),
        held_out=corpus_file("test"),
        lexicon="results/lexicons/{task}.json",
        matches=f"{CELL}/sae/{{sae}}/matches.parquet",
        autoencoders=autoencoders_of("small"),
    output:
        explanations=f"{CELL}/explanations/{{sae}}/heuristic.parquet",
        excerpts=f"{CELL}/explanations/{{sae}}/excerpts.parquet",
        evidence=f"{CELL}/explanations/{{sae}}/evidence.parquet",
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
        " --corpus {input.corpus:q} --held-out {input.held_out:q} --lexicon {input.lexicon:q}"
        " --matches {input.matches:q} --autoencoders {input.autoencoders:q}"
        " --output {output.explanations:q} --excerpts {output.excerpts:q} --evidence {output.evidence:q}"


rule language_explanations:
    input:
        explanations=f"{CELL}/explanations/{{sae}}/heuristic.parquet",
        evidence=f"{CELL}/explanations/{{sae}}/evidence.parquet",
    output:
        f"{CELL}/explanations/{{sae}}/{{explainer}}.parquet",
    log:
        "results/logs/{model}/{task}/seed{seed}/explanations/{sae}/{explainer}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/explanations/{sae}/{explainer}.tsv"
    wildcard_constraints:
        explainer=names(GRID.explainers),
    conda:
        "../envs/analysis.yaml"
    resources:
        api=1,
        mem_mb=growing(1000),
        runtime=growing(240),
    params:
        settings=settings("language_explanations"),
        code=code("language_explanations"),
        cache=lambda w: cache_of(GRID.explainers[w.explainer]["service"]),
    shell:
        "python -m workflow_scripts.language_explanations --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --explanations {input.explanations:q} --evidence {input.evidence:q}"
        " --cache {params.cache:q} --output {output:q}"


rule explanation_scores:
    input:
        explanations=f"{CELL}/explanations/{{sae}}/{{explainer}}.parquet",
        excerpts=f"{CELL}/explanations/{{sae}}/excerpts.parquet",
    output:
        f"{CELL}/explanations/{{sae}}/scores/{{explainer}}.parquet",
    log:
        "results/logs/{model}/{task}/seed{seed}/explanations/{sae}/scores/{explainer}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/explanations/{sae}/scores/{explainer}.tsv"
    conda:
        "../envs/analysis.yaml"
    resources:
        api=lambda w: 1 if cell_of(w).settings["explanations"].judge else 0,
        mem_mb=growing(1000),
        runtime=growing(240),
    params:
        settings=settings("scores"),
        code=code("explanation_scores"),
        cache=lambda w: cache_of(cell_of(w).settings["explanations"].judge),
    shell:
        "python -m workflow_scripts.explanation_scores --settings {params.settings:q} --code {params.code}"
        " --log {log:q} --explanations {input.explanations:q} --excerpts {input.excerpts:q}"
        " --cache {params.cache:q} --output {output:q}"
