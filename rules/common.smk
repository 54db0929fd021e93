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

from lfp.grid import ConfigurationError, Grid
from lfp.running.digest import code_digest
from lfp.files.canonical import canonical_json

try:
    GRID = Grid(config)
except ConfigurationError as error:
    raise WorkflowError(f"configuration: {error}")

# Jobs find the package from any working directory; an absolute path here is no parameter of a job.
# What limits calls to language-model services reaches jobs beside their settings: a raised budget reruns nothing.
LIMITS = shlex.quote(canonical_json(GRID.service_limits())).replace("{", "{{").replace("}", "}}")
TENSORBOARD = "LFP_TENSORBOARD=1" if GRID.config["tensorboard"] else ""
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={workflow.basedir!r} LFP_SERVICES={LIMITS} {TENSORBOARD}; "
)

CELL = "results/{model}/{task}/seed{seed}"
ACTIVATIONS = directory(f"{CELL}/activations")
if not GRID.config["keep_activations"]:
    ACTIVATIONS = temp(ACTIVATIONS)


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
    subject="policy|base|untrained|other_seed|other_task|text",
    explainer=names(["heuristic", *GRID.explainers]),


def cell_of(wildcards):
    """The cell of a job."""
    address = f"{wildcards.model}/{wildcards.task}/seed{wildcards.seed}"
    if address not in GRID.by_address:
        raise WorkflowError(
            f"no cell {address} in the configuration; it has {', '.join(GRID.by_address)}"
        )
    return GRID.by_address[address]


def settings(stage):
    """A stage's settings of a job's cell as canonical JSON: the parameter that makes a changed setting a rerun."""
    return lambda wildcards: canonical_json(
        GRID.job_settings(stage, cell_of(wildcards), dict(wildcards))
    )


def code(script):
    """Digest of the code of the rule's script and of all that it imports."""
    return code_digest(f"workflow_scripts.{script}")


def corpus_file(split):
    """The corpus file of a job's task; `split` may be a function of the cell."""

    def path(wildcards):
        cell = cell_of(wildcards)
        name = split(cell) if callable(split) else split
        return f"results/corpora/{GRID.tasks[cell.task]['corpus']}/{name}.parquet"

    return path


def selection(wildcards):
    """The divergence JSON of a job's cell as a dictionary; waits for the checkpoint."""
    with (
        checkpoints.divergence.get(**{k: wildcards[k] for k in ("model", "task", "seed")})
        .output[0]
        .open() as file
    ):
        return json.load(file)


def chosen_layers(wildcards):
    """The layers that are probed: pinned ones, or the most changed ones once the divergence is known."""
    return cell_of(wildcards).layers or selection(wildcards)["chosen"]


def trained_layers(wildcards, sae):
    """The layers that get autoencoders of a variant: the chosen ones, and the least changed where a cell asks."""
    cell = cell_of(wildcards)
    lowest = cell.lowest_layers if sae == cell.main else ()
    if lowest is True:
        lowest = selection(wildcards)["lowest"]
    return sorted({*chosen_layers(wildcards), *(lowest or ())})


def harvested_layers(wildcards):
    """Layers whose activations are harvested: all where they are kept, so that a layer chosen later finds its own."""
    if GRID.config["keep_activations"]:
        return list(range(GRID.n_layers(wildcards.model)))
    return trained_layers(wildcards, cell_of(wildcards).main)


def autoencoders_of(size, layers=chosen_layers):
    """Directories of the autoencoders of a job's cell for its layers."""

    def paths(wildcards):
        cell = cell_of(wildcards)
        sae = wildcards.get("sae", cell.main)
        return [
            f"results/{cell.address}/sae/{sae}/layer{layer}/{size}" for layer in layers(wildcards)
        ]

    return paths


def cache_of(service):
    """The file that keeps the answers of a language-model service."""
    return f"results/llm_cache/{service}.sqlite" if service else []


def growing(amount):
    """A resource of which every attempt asks for `amount` more."""
    return lambda wildcards, attempt: amount * attempt


def model_resource(key):
    """A resource of the job's model that grows with every attempt."""
    return lambda wildcards, attempt: GRID.models[wildcards.model][key] * attempt


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
    if gpus < 2:
        return "python -m"
    return (
        f"python -m lfp.running.lease {gpus} python -m accelerate.commands.launch"
        f" --num_processes {gpus} --multi_gpu -m"
    )


def classifier_of(wildcards):
    """The classifier whose logit is the reward of a job's task, where it is one."""
    task = GRID.tasks[wildcards.task]
    return f"results/models/{task['classifier']}" if task["reward"] == "classifier" else []


def model_threads(wildcards):
    """Threads of a job that runs the model."""
    return GRID.models[wildcards.model]["threads"]


def policy_of(wildcards):
    """The policy that a subject reads: the cell's own, or another cell's for a control."""
    address = cell_of(wildcards).address
    return f"results/{GRID.donors.get((address, wildcards.subject), GRID.by_address[address]).address}/policy"


def needs_probe(wildcards):
    """Whether an arm of the job's subject ablates by the probe's weights."""
    own = cell_of(wildcards).settings["ablation"]
    arms = own.arms if wildcards.subject == "policy" else own.base_arms
    return "top_probe_weight" in arms


def sources(entries, *kinds):
    """Names of the corpora or models that come from one of `kinds`."""
    return names(name for name, entry in entries.items() if any(kind in entry for kind in kinds))


def tasks_by(*methods):
    """Names of the tasks with one of some fine-tuning methods."""
    return names(name for name, task in GRID.tasks.items() if task["method"] in methods)
