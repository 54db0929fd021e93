"""What other tools open: latents as delphi's cache, explanations as Neuronpedia's JSON lines.

In: policy, corpus, smallest autoencoders, explanations. Out:
results/exports/{model}/{task}/seed{seed}/{sae}/ with delphi/latents/{hook}/ and explanations.jsonl.
The autoencoders' own directories are SAELens's.
"""


rule export:
    input:
        policy=f"{CELL}/policy",
        corpus=PLAN.corpus("test"),
        autoencoders=PLAN.autoencoders,
        explanations=PLAN.explanations,
    output:
        export=directory("results/exports/{model}/{task}/seed{seed}/{sae}"),
    log:
        log_of("results/exports/{model}/{task}/seed{seed}/{sae}"),
    conda:
        MODEL
    threads: PLAN.threads
    resources:
        **PLAN.resources(),
    params:
        **PLAN.job("export"),
    shell:
        MODEL_JOB
