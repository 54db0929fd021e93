"""The grid and what all rules share: settings and code as parameters, inputs by cell, resources.

In: the configuration. Out: nothing; every other file of rules reads GRID and the helpers below.
"""

import json
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from snakemake.exceptions import WorkflowError

from lfp.files.canonical import canonical_json
from lfp.grid import ConfigurationError, Grid
from lfp.interventions.arms import ARMS
from lfp.models.sites import SITES
from lfp.probing.subjects import SUBJECTS
from lfp.running.digest import code_digest

try:
    GRID = Grid(config)
except ConfigurationError as error:
    raise WorkflowError(f"configuration: {error}")

# Jobs find the package from any working directory; an absolute path here is no parameter of a job.
# Limits of calls to language-model services reach jobs beside their settings: a raised budget reruns
# nothing.
LIMITS = shlex.quote(canonical_json(GRID.service_limits())).replace("{", "{{").replace("}", "}}")
TENSORBOARD = "LFP_TENSORBOARD=1" if GRID.config["tensorboard"] else ""
EXPORTS = f"PYTHONPATH={workflow.basedir!r} LFP_SERVICES={LIMITS} {TENSORBOARD}"
shell.prefix(f"set -euo pipefail; export {EXPORTS}; ")

CELL = "results/{model}/{task}/seed{seed}"
MODEL, ANALYSIS = "../envs/model.yaml", "../envs/analysis.yaml"
KEPT = GRID.config["keep_activations"]

# The command of every job: paths reach the script by the names that they have in the rule.
JOB = (
    "{params.launcher} workflow_scripts.{params.script} --settings {params.settings:q}"
    " --code {params.code} --threads {threads} --log {log:q} --names {params.names:q}"
    " --paths {input:q} {output:q}"
)
MODEL_JOB = JOB.replace("--log", "--gpus {resources.gpu} --log")


def names(values):
    """A wildcard pattern that admits exactly `values`, or nothing where there are none."""
    return "|".join(re.escape(str(value)) for value in sorted(set(values))) or "(?!)"


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


def cell_of(wildcards):
    """The cell of a job."""
    address = f"{wildcards.model}/{wildcards.task}/seed{wildcards.seed}"
    if address not in GRID.by_address:
        known = ", ".join(GRID.by_address)
        raise WorkflowError(f"no cell {address} in the configuration; it has {known}")
    return GRID.by_address[address]


def of_cell(stage, **values):
    """A stage's settings of a job's cell, and `values`, functions of the job's wildcards."""

    def settings(wildcards):
        own = GRID.job_settings(stage, cell_of(wildcards), dict(wildcards))
        return own | {name: value(wildcards) for name, value in values.items()}

    return settings


def job(script, settings, code=None, launcher="python -m"):
    """Parameters of a rule: its script, settings as canonical JSON, the digest of its code, and how
    many paths every named input and output has.
    """
    return {
        "script": script,
        "settings": lambda w: canonical_json(settings(w)),
        "code": code or code_digest(f"workflow_scripts.{script}"),
        "launcher": launcher,
        "names": lambda w, input, output: f"{counted(input)} -- {counted(output)}",
    }


def counted(paths):
    """The names of `paths`, each with its number of paths where it is a list."""
    return " ".join(
        name if isinstance(value, str) else f"{name}:{len(value)}" for name, value in paths.items()
    )


def log_of(address):
    """The log of the job that writes an artefact."""
    return f"{address.replace('results/', 'results/logs/', 1)}.log"


def benchmark_of(address):
    """What the job that writes an artefact took."""
    return f"{address.replace('results/', 'results/benchmarks/', 1)}.tsv"


def growing(mem_mb, runtime, **others):
    """Resources of a job that runs no model: every attempt asks for as much memory and time more."""
    return {
        "mem_mb": lambda w, attempt: mem_mb * attempt,
        "runtime": lambda w, attempt: runtime * attempt,
        **others,
    }


def model_resources(gpu=None):
    """Resources of a job that runs the model; memory and time grow with every attempt."""

    def of_model(key):
        return lambda wildcards, attempt: GRID.models[wildcards.model][key] * attempt

    return {"gpu": gpu or model_gpus, "mem_mb": of_model("mem_mb"), "runtime": of_model("runtime")}


def model_gpus(wildcards):
    """GPUs of a job that runs the model; 0 where none is configured."""
    return GRID.models[wildcards.model]["gpus"]


def finetune_gpus(wildcards):
    """GPUs of a job that fine-tunes the model."""
    entry = GRID.models[wildcards.model]
    return entry["gpus"] if entry["finetune_gpus"] is None else entry["finetune_gpus"]


def launcher(wildcards):
    """How a job starts that can train on several GPUs: one process for each."""
    gpus = finetune_gpus(wildcards)
    accelerate = "python -m accelerate.commands.launch"
    several = f"python -m lfp.running.lease {gpus} {accelerate} --num_processes {gpus} --multi_gpu"
    return f"{several} -m" if gpus > 1 else "python -m"


def model_threads(wildcards):
    """Threads of a job that runs the model."""
    return GRID.models[wildcards.model]["threads"]


def corpus_of(split):
    """The corpus file of a job's task; `split` may be a function of the cell."""

    def path(wildcards):
        name = split(cell_of(wildcards)) if callable(split) else split
        return f"results/corpora/{GRID.tasks[wildcards.task]['corpus']}/{name}.parquet"

    return path


def read_split(cell):
    """The split whose activations a cell's autoencoders learn from."""
    return cell.settings["activations"].split


def selection(cell):
    """The divergence JSON of a cell as a dictionary; waits for the checkpoint."""
    place = {"model": cell.model, "task": cell.task, "seed": cell.seed}
    with checkpoints.divergence.get(**place).output.divergence.open() as file:
        return json.load(file)


def chosen_layers(cell):
    """The layers that are probed: pinned ones, or the most changed ones after the divergence."""
    return cell.layers or selection(cell)["chosen"]


def trained_layers(cell, sae):
    """Layers with autoencoders of a variant: the chosen ones, and the least changed on request."""
    lowest = cell.lowest_layers if sae == cell.main else ()
    if lowest is True:
        lowest = selection(cell)["lowest"]
    return sorted({*chosen_layers(cell), *(lowest or ())})


def autoencoders_of(layers):
    """A variant's directories of a job's cell, one for each of its `layers` (cell, variant)."""

    def paths(wildcards):
        cell, sae = cell_of(wildcards), wildcards.sae
        return [f"results/{cell.address}/sae/{sae}/layer{n}" for n in layers(cell, sae)]

    return paths


probed_autoencoders = autoencoders_of(lambda cell, sae: chosen_layers(cell))


def read_model(wildcards):
    """The model whose activations a variant learns from."""
    reads = GRID.autoencoder_settings(cell_of(wildcards), wildcards.sae).reads
    return f"{CELL}/policy" if reads == "policy" else "results/models/{model}"


def classifier_of(wildcards):
    """The classifier whose logit is the reward of a job's task, where it is one."""
    task = GRID.tasks[wildcards.task]
    return f"results/models/{task['classifier']}" if task["reward"] == "classifier" else []


def policy_of(wildcards):
    """The policy that a subject reads: the cell's own, or another cell's for a control."""
    address = cell_of(wildcards).address
    donor = GRID.donors.get((address, wildcards.subject), GRID.by_address[address])
    return f"results/{donor.address}/policy"


def from_source(entries, *kinds):
    """A wildcard pattern of the corpora or models that come from one of `kinds`."""
    return names(
        name for name, entry in entries.items() if any(entry.get(kind) is not None for kind in kinds)
    )


def tasks_by(*methods):
    """A wildcard pattern of the tasks with one of some fine-tuning methods."""
    return names(name for name, task in GRID.tasks.items() if task["method"] in methods)
