"""Ablation of latents while the model writes, one job per model with all its arms.

In: policy or base, held-out corpus, lexicon, smallest autoencoders, explanations, the policy's probe.
Out: results/{model}/{task}/seed{seed}/ablation/{sae}/{subject}.parquet, a row per condition and
prompt, and {subject}.neutral.parquet, a row per condition and neutral text.
"""

ABLATION = CELL + "/ablation/{sae}/{subject}"


def related_by(wildcards):
    """The explanations whose related latents are ablated."""
    explainer = cell_of(wildcards).settings["ablation"].explainer
    return f"{CELL}/explanations/{{sae}}/{explainer}.parquet"


def probe_of(wildcards):
    """The policy's probe, where an arm of the job selects by its weights."""
    ablation = cell_of(wildcards).settings["ablation"]
    arms = ablation.arms if wildcards.subject == "policy" else ablation.base_arms
    wanted = any(ARMS[arm].reads_probe for arm in arms)
    return CELL + "/probes/{sae}/policy/probe.safetensors" if wanted else []


rule ablation:
    input:
        model=lambda w: f"{CELL}/policy" if w.subject == "policy" else "results/models/{model}",
        corpus=corpus_of("test"),
        lexicon="results/lexicons/{task}.json",
        explanations=related_by,
        probe=probe_of,
        autoencoders=probed_autoencoders,
        classifier=classifier_of,
    output:
        completions=f"{ABLATION}.parquet",
        neutral=f"{ABLATION}.neutral.parquet",
    log:
        log_of(ABLATION),
    benchmark:
        benchmark_of(ABLATION)
    wildcard_constraints:
        subject="policy|base",
    priority: 3
    conda:
        MODEL
    threads: model_threads
    resources:
        **model_resources(),
    params:
        **job("ablation", of_cell("ablation")),
    shell:
        MODEL_JOB
