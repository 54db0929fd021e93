"""Which tables and figures the configuration has, read from their catalogues.

In: the grid. Out: nothing; rules/tables.smk and the target rules read the names and inputs below.
"""

from lfp.figures.catalogue import FIGURES
from lfp.running.digest import code_digest
from lfp.tables.catalogue import RESOURCES_CAPTION, TABLES
from lfp.tables.inputs import Plan

FORMATS = ("csv", "parquet", "md", "tex")
PLAN = Plan(GRID)
ABLATED = PLAN.ablated
per_cell, probe_files = PLAN.per_cell, PLAN.probe_files
# Name -> inputs; a table or figure without inputs in this configuration is left out.
TABLE_INPUTS = {name: table.inputs(PLAN) for name, table in TABLES.items()}
FIGURE_INPUTS = {name: figure.inputs(PLAN) for name, figure in FIGURES.items()}
CAPTIONS = {
    "tables": {name: table.caption for name, table in TABLES.items()}
    | {"resources": RESOURCES_CAPTION},
    "figures": {name: figure.caption for name, figure in FIGURES.items()},
}


def stage_of(name):
    """Section of a table or figure in the report."""
    return (TABLES.get(name) or FIGURES[name]).section.value


def table_files():
    """Every table of this configuration, in every format."""
    kept = [name for name, inputs in TABLE_INPUTS.items() if inputs]
    return [f"results/tables/{name}.{kind}" for name in kept for kind in (*FORMATS, "html")]


def figure_files():
    """Every figure of this configuration, in every format."""
    kept = [name for name, inputs in FIGURE_INPUTS.items() if inputs]
    return [f"results/figures/{name}.{kind}" for name in kept for kind in ("svg", "png")]


def caption(kind, name):
    """Text of a caption; the table's other formats carry it too."""
    return CAPTIONS[kind][name]


def code_with(script, entry):
    """Digests of the code of a rule's script and of the module that the script loads for `entry`.

    A table or figure is made again when its own module changed, not when another's did.
    """
    return f"{code(script)}.{code_digest(entry.partition(':')[0])}"
