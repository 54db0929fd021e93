"""Fine-tuning with feedback: PPO, RLOO or GRPO on a reward of text, DPO on preference pairs, or a
policy that is given.

In: base checkpoint, corpus, lexicon. Out: results/{model}/{task}/seed{seed}/policy/ with the
checkpoint, its training curve and its evaluation on held-out text.
"""

POLICY = f"{CELL}/policy"


rule ppo:
    input:
        base="results/models/{model}",
        lexicon="results/lexicons/{task}.json",
        train=corpus_of("train"),
        test=corpus_of("test"),
        classifier=classifier_of,
    output:
        policy=directory(POLICY),
    log:
        log_of(POLICY),
    benchmark:
        benchmark_of(POLICY)
    wildcard_constraints:
        task=tasks_by("ppo"),
    priority: 9
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(finetune_gpus),
    params:
        **job("ppo", of_cell("ppo")),
    shell:
        MODEL_JOB


use rule ppo as group with:
    wildcard_constraints:
        task=tasks_by("rloo", "grpo"),
    params:
        **job("group", of_cell("group"), launcher=launcher),


use rule ppo as dpo with:
    input:
        base="results/models/{model}",
        train=corpus_of("train"),
        test=corpus_of("test"),
    wildcard_constraints:
        task=tasks_by("dpo"),
    params:
        **job("dpo", of_cell("dpo"), launcher=launcher),


use rule ppo as given with:
    input:
        base="results/models/{model}",
        given="results/models/{model}--{task}",
        lexicon="results/lexicons/{task}.json",
        test=corpus_of("test"),
        classifier=classifier_of,
    wildcard_constraints:
        task=tasks_by("given"),
    params:
        **job("given", of_cell("given")),
