"""Fine-tuning with feedback: PPO, RLOO or GRPO on a reward of text, DPO on preference pairs.

In: base checkpoint, corpus, lexicon. Out: results/{model}/{task}/seed{seed}/policy/ with the checkpoint, its
training curve and its evaluation on held-out text.
"""


rule ppo:
    input:
        base="results/models/{model}",
        lexicon="results/lexicons/{task}.json",
        train=corpus_file("train"),
        test=corpus_file("test"),
        classifier=classifier_of,
    output:
        directory(f"{CELL}/policy"),
    log:
        "results/logs/{model}/{task}/seed{seed}/policy.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/policy.tsv"
    wildcard_constraints:
        task=tasks_by("ppo"),
    priority: 9
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=finetune_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("ppo"),
        code=code("ppo"),
    shell:
        "python -m workflow_scripts.ppo --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --base {input.base:q}"
        " --lexicon {input.lexicon:q} --train {input.train:q} --test {input.test:q}"
        " --classifier {input.classifier:q} --policy {output:q}"


rule group:
    input:
        base="results/models/{model}",
        lexicon="results/lexicons/{task}.json",
        train=corpus_file("train"),
        test=corpus_file("test"),
        classifier=classifier_of,
    output:
        directory(f"{CELL}/policy"),
    log:
        "results/logs/{model}/{task}/seed{seed}/policy.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/policy.tsv"
    wildcard_constraints:
        task=tasks_by("rloo", "grpo"),
    priority: 9
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=finetune_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("group"),
        code=code("group"),
        method=lambda w: GRID.tasks[w.task]["method"],
        launcher=launcher,
    shell:
        "{params.launcher} workflow_scripts.group --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --method {params.method} --base {input.base:q}"
        " --lexicon {input.lexicon:q} --train {input.train:q} --test {input.test:q}"
        " --classifier {input.classifier:q} --policy {output:q}"


rule dpo:
    input:
        base="results/models/{model}",
        train=corpus_file("train"),
        test=corpus_file("test"),
    output:
        directory(f"{CELL}/policy"),
    log:
        "results/logs/{model}/{task}/seed{seed}/policy.log",
    benchmark:
        "results/benchmarks/{model}/{task}/seed{seed}/policy.tsv"
    wildcard_constraints:
        task=tasks_by("dpo"),
    priority: 9
    conda:
        "../envs/model.yaml"
    threads: model_threads
    resources:
        gpu=finetune_gpus,
        mem_mb=model_resource("mem_mb"),
        runtime=model_resource("runtime"),
    params:
        settings=settings("dpo"),
        code=code("dpo"),
        launcher=launcher,
    shell:
        "{params.launcher} workflow_scripts.dpo --settings {params.settings:q} --code {params.code}"
        " --threads {threads} --gpus {resources.gpu} --log {log:q} --base {input.base:q}"
        " --train {input.train:q} --test {input.test:q} --policy {output:q}"
