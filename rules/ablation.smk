"""Ablation of features during generation, one job per model with all its arms.

In: policy or base, held-out corpus, lexicon, small autoencoders, explanations, the policy's probe. Out:
results/{model}/{task}/seed{seed}/ablation/{sae}/{subject}.parquet, a row per arm, draw and prompt,
and {subject}.neutral.parquet, a row per arm, draw and neutral text.
"""


rule ablation:
    input:
        model=lambda w: f"{CELL}/policy" if w.subject == "policy" else "results/models/{model}",
        corpus=corpus_file("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=lambda w: f"{CELL}/explanations/{{sae}}/{cell_of(w).settings['ablation'].explainer}.parquet",
        probe=lambda w: f"{CELL}/probes/{{sae}}/policy/probe.safetensors" if needs_probe(w) else [],
        autoencoders=autoencoders_of("small"),
        classifier=classifier_of,
    output:
        completions=f"{CELL}/ablation/{{sae}}/{{subject}}.parquet",
        neutral=f"{CELL}/ablation/{{sae}}/{{subject}}.neutral.parquet",
    log:
        "results/logs/{model}/{task}/seed{seed}/ablation/{sae}/{subject}.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/ablation/{sae}/{subject}.tsv"
    wildcard_constraints:
        subject="policy|base",
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
        " --threads {threads} --gpus {resources.gpu} --log {log:q}"
        " --model {input.model:q} --corpus {input.corpus:q} --lexicon {input.lexicon:q}"
        " --explanations {input.explanations:q} --probe {input.probe:q} --autoencoders {input.autoencoders:q}"
        " --classifier {input.classifier:q}"
        " --output {output.completions:q} --neutral {output.neutral:q}"
