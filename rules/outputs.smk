"""The tables and figures that the configuration has, read from their catalogues.

In: the grid. Out: nothing; rules/tables.smk, rules/compare.smk and the target rules read the inputs
below.
"""

from lfp.figures.catalogue import FIGURES
from lfp.reporting import unestimated
from lfp.tables.catalogue import RESOURCES_CAPTION, TABLES, Section
from lfp.tables.inputs import Plan

FORMATS = ("csv", "parquet", "md", "tex", "html")
ARTEFACTS = Plan(GRID)
# Name -> inputs; a table or figure without inputs in this configuration is left out.
TABLE_INPUTS = {name: table.inputs(ARTEFACTS) for name, table in TABLES.items()}
HEALTH = {name: ARTEFACTS.health_files() for name, table in TABLES.items() if table.judged}
FIGURE_INPUTS = {name: figure.inputs(ARTEFACTS) for name, figure in FIGURES.items()}

SUMMARY_FIGURES = [
    name
    for name, figure in FIGURES.items()
    if FIGURE_INPUTS[name] and figure.section in (Section.SUMMARY, Section.CHANGE)
]


def table_files():
    """Every table of this configuration, in every format."""
    kept = [name for name, inputs in TABLE_INPUTS.items() if inputs]
    return [f"results/tables/{name}.{kind}" for name in kept for kind in FORMATS]


def figure_files():
    """Every figure of this configuration, in every format."""
    kept = [name for name, inputs in FIGURE_INPUTS.items() if inputs]
    return [f"results/figures/{name}.{kind}" for name in kept for kind in ("svg", "png")]


def page_folders():
    """The pages of latents of every explained cell."""
    return ARTEFACTS.per_cell("{cell}/explanations/{sae}/pages", ARTEFACTS.ablated)


try:
    OTHER, ANSWERS = PLAN.other_run(), PLAN.answers()
except ConfigurationError as error:
    raise WorkflowError(f"configuration: {error}")


def other_run(wildcards):
    """The files of the other run, once a comparison is asked for."""
    if OTHER is None:
        raise WorkflowError("compare: name the other run: --config other=FOLDER (docs/compare.md)")
    return OTHER


def answers(wildcards):
    """The file of answers, once a score is asked for."""
    if ANSWERS is None:
        raise WorkflowError("score: name the file: --config answers=FILE (docs/detecting.md)")
    return ANSWERS


def audited(wildcards):
    """The files of an audited grid, once a game is asked for."""
    files = ARTEFACTS.audited_files()
    if not files:
        raise WorkflowError(
            "blind: the configuration has no three policies of the clean lexicon (`reward: vader`)"
            " and others beside them; take config/detection.yaml"
        )
    return files
