"""Ablation of latents while the model writes, one job per model with all its arms.

In: policy or base, held-out corpus, lexicon, smallest autoencoders, explanations, the policy's
probe. Out: results/{model}/{task}/seed{seed}/ablation/{sae}/{subject}.parquet, a row per condition
and prompt, and {subject}.neutral.parquet, a row per condition and neutral text.
"""


rule ablation:
    input:
        model=PLAN.ablated_model,
        other=PLAN.swapped_model,
        corpus=PLAN.corpus("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=PLAN.related,
        probe=PLAN.probe,
        autoencoders=PLAN.autoencoders,
        classifier=PLAN.classifier,
    output:
        completions=f"{CELL}/ablation/{{sae}}/{{subject}}.parquet",
        neutral=f"{CELL}/ablation/{{sae}}/{{subject}}.neutral.parquet",
    log:
        log_of(f"{CELL}/ablation/{{sae}}/{{subject}}"),
    wildcard_constraints:
        subject="policy|base",
    priority: 3
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("ablation"),
    shell:
        MODEL_JOB
