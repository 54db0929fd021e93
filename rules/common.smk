"""The grid and what all rules share: settings and code as parameters, inputs by cell, resources.

In: the configuration. Out: nothing; every other file of rules reads GRID and the helpers below.
"""

import os
import sys

sys.path.insert(0, workflow.basedir)

from snakemake.exceptions import WorkflowError

from lfp.config_files import complete
from lfp.files.canonical import canonical_json
from lfp.grid import ConfigurationError, Grid
from lfp.planning import (
    ALONE,
    JOB,
    MODEL_JOB,
    Planner,
    check_registries,
    code_with,
    growing,
    importable,
    job,
    literal,
    log_of,
    names,
    preamble,
)
from lfp.probing.subjects import SUBJECTS
from lfp.running import fork_server
from lfp.sites import SITES

try:
    check_registries()
    WORDS = workflow.config_settings
    GRID = Grid(complete(config, workflow.configfiles, WORDS.config, WORDS.config_args))
    HOME = importable(workflow.basedir)
except ConfigurationError as error:
    raise WorkflowError(f"configuration: {error}")

# Limits of calls to language-model services reach jobs beside their settings, so that a raised
# budget reruns nothing.
EXPORTS = {"LFP_SERVICES": canonical_json(GRID.service_limits())}
SWITCHES = {"LFP_TENSORBOARD": "tensorboard", "LFP_ALLOW_CPU": "allow_cpu"}
EXPORTS |= {name: "1" for name, key in SWITCHES.items() if GRID.config[key]}
shell.prefix(literal(preamble(HOME, EXPORTS)))

CELL = "results/{model}/{task}/seed{seed}"
ENVS = literal(os.path.join(workflow.basedir, "envs"))
MODEL, ANALYSIS = f"{ENVS}/model.yaml", f"{ENVS}/analysis.yaml"


def divergence_of(cell):
    """The divergence file of a cell; waits for the checkpoint."""
    place = {"model": cell.model, "task": cell.task, "seed": cell.seed}
    return checkpoints.divergence.get(**place).output.divergence


PLAN = Planner(GRID, divergence_of)


def kept(path):
    """Activations stay, or go when their autoencoders are trained."""
    return directory(path) if GRID.config["keep_activations"] else temp(directory(path))


wildcard_constraints:
    corpus=names(GRID.corpora),
    model=names(GRID.models),
    task=names(GRID.tasks),
    seed=r"\d+",
    sae=names(GRID.autoencoders),
    layer=r"\d+",
    site=names(SITES),
    subject=names(SUBJECTS),
    explainer=names(["heuristic", *GRID.explainers]),
