"""A blind audit: policies under names that tell nothing, and the scores of answers about them.

In: policies, bases, readings and lexicons of an audited grid. Out: results/blind/ for the players
and results/blind.truth.json for the referee; results/blind_score.{csv,json} of the file `answers`
of the configuration, which no other rule reads.
"""


localrules:
    score,


rule blind:
    input:
        audited=audited,
        bases=ARTEFACTS.audited_bases(),
    output:
        game=directory("results/blind"),
        truth="results/blind.truth.json",
    log:
        log_of("results/blind"),
    conda:
        ANALYSIS
    resources:
        **growing(1000, 30),
    params:
        **job(
            "blind",
            lambda w: {
                "seed": GRID.config["blind_seed"],
                "given": GRID.table_settings()["given"],
                "trained": GRID.table_settings()["trained"],
            },
        ),
    shell:
        JOB


rule score:
    input:
        audited=audited,
        game="results/blind",
        truth="results/blind.truth.json",
        answers=answers,
    output:
        csv="results/blind_score.csv",
        json="results/blind_score.json",
    log:
        log_of("results/blind_score"),
    conda:
        ANALYSIS
    params:
        **job("score", lambda w: {"tables": GRID.table_settings()}),
    shell:
        JOB
