"""Fine-tuning with feedback: PPO, RLOO or GRPO on a reward of text, the base's own completions as
the reward ranks them, a steering vector that is distilled, DPO on preference pairs, or a policy
that is given.

In: base checkpoint, corpus, lexicon. Out: results/{model}/{task}/seed{seed}/policy/ with the
checkpoint, its training curve and its evaluation on held-out text. Completions of the base that
rewards rank are shared by all of them:
results/{model}/base/{corpus}/completions/{sampling}/seed{seed}.parquet, with a digest of the
settings of the sampling.
"""

COMPLETIONS = "results/{model}/base/{corpus}/completions/{sampling}/seed{seed}"


rule ppo:
    input:
        base="results/models/{model}",
        lexicon="results/lexicons/{task}.json",
        train=PLAN.corpus("train"),
        test=PLAN.corpus("test"),
        classifier=PLAN.classifier,
    output:
        policy=directory(f"{CELL}/policy"),
    log:
        log_of(f"{CELL}/policy"),
    wildcard_constraints:
        task=PLAN.tasks_by("ppo"),
    priority: 9
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(PLAN.finetune_gpus),
    params:
        **PLAN.job("ppo"),
    shell:
        MODEL_JOB


use rule ppo as group with:
    wildcard_constraints:
        task=PLAN.tasks_by("rloo", "grpo"),
    params:
        **PLAN.job("group", launcher=PLAN.launcher),


rule completions:
    input:
        base="results/models/{model}",
        train="results/corpora/{corpus}/train.parquet",
    output:
        completions=f"{COMPLETIONS}.parquet",
    log:
        log_of(COMPLETIONS),
    wildcard_constraints:
        sampling=r"[0-9a-f]+",
    priority: 9
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(PLAN.sampling_gpus),
    params:
        **job("completions", PLAN.sampling),
    shell:
        MODEL_JOB


use rule ppo as best_of_n with:
    input:
        base="results/models/{model}",
        lexicon="results/lexicons/{task}.json",
        completions=PLAN.completions,
        test=PLAN.corpus("test"),
        classifier=PLAN.classifier,
    wildcard_constraints:
        task=PLAN.tasks_by("best_of_n"),
    params:
        **PLAN.job("best_of_n"),


use rule best_of_n as ranked with:
    wildcard_constraints:
        task=PLAN.tasks_by("ranked"),
    params:
        **PLAN.job("ranked"),


use rule ppo as distil with:
    wildcard_constraints:
        task=PLAN.tasks_by("distil"),
    params:
        **PLAN.job("distil"),


use rule ppo as dpo with:
    input:
        base="results/models/{model}",
        train=PLAN.corpus("train"),
        test=PLAN.corpus("test"),
    wildcard_constraints:
        task=PLAN.tasks_by("dpo"),
    params:
        **PLAN.job("dpo", launcher=PLAN.launcher),


use rule ppo as given with:
    input:
        base="results/models/{model}",
        given="results/models/{model}--{task}",
        lexicon="results/lexicons/{task}.json",
        test=PLAN.corpus("test"),
        classifier=PLAN.classifier,
    wildcard_constraints:
        task=PLAN.tasks_by("given"),
    params:
        **PLAN.job("given"),
