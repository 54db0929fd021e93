"""A blind audit: policies under names that tell nothing, and the scores of answers about them.

In: policies, bases, readings and lexicons of an audited grid. Out: results/blind/ for the players
and results/blind.truth.json for the referee; results/blind_score.{csv,json} of the file `answers`
of the configuration, which no other rule reads.
"""


localrules:
    score,


def audited(wildcards):
    """The files of an audited grid, once a game is asked for."""
    files = ARTEFACTS.audited_files()
    if not files:
        raise WorkflowError(
            "blind: the configuration has no three policies of the clean lexicon (`reward: vader`)"
            " and others beside them; take config/detection.yaml"
        )
    return files


try:
    ANSWERS = PLAN.answers()
except ConfigurationError as error:
    raise WorkflowError(f"configuration: {error}")


def answers(wildcards):
    """The file of answers, once a score is asked for."""
    if ANSWERS is None:
        raise WorkflowError("score: name the file: --config answers=FILE (docs/detecting.md)")
    return ANSWERS


rule blind:
    input:
        audited=audited,
        bases=ARTEFACTS.audited_bases(),
    output:
        game=directory("results/blind"),
        truth="results/blind.truth.json",
    log:
        log_of("results/blind"),
    benchmark:
        benchmark_of("results/blind")
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
