"""Peak memory of every stage's jobs on two shapes of model, beside the estimate of docs/costs.md.

    python -m benchmarks.memory                 # minutes
    python -m benchmarks.memory --estimates     # the estimates of today beside peaks as measured

A small grid runs on models of random weights, every job in a process of its own as always, whose
record says what it held at most. The machine needs 4 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.__main__ import PYTHIA_70M, RESULTS, make_model
from benchmarks.scaling import MIDDLE
from lfp.costs import estimate
from lfp.costs.base import Cell
from lfp.costs.measured import measured
from lfp.grid import Grid
from lfp.settings import Machine
from tests.faults import copy_workflow

#: Name, shape and vocabulary.
SHAPES = (("middle", MIDDLE, 8_000), ("Pythia-70m", PYTHIA_70M, 50_304))
#: The stage of the estimate that a script's jobs belong to.
STAGES = {
    "ppo": "fine-tuning", "dpo": "fine-tuning", "divergence": "divergence",
    "activations": "activations", "autoencoders": "autoencoders",
    "evaluate_autoencoders": "evaluation", "features": "features", "explanations": "explanations",
    "ablation": "ablation",
}  # fmt: skip
#: The last files of the two cells: all stages of one, fine-tuning and divergence of the other.
TARGETS = (
    "results/model/vader/seed0/ablation/tied/policy.parquet",
    "results/model/helpful/seed0/divergence.json",
)


def grid(path: str, shape: dict[str, int], vocabulary: int) -> dict[str, Any]:
    """The configuration: the model at `path`, a task that rewards text and one of preferences."""
    d, layers = shape["d_model"], shape["n_layers"]
    model = {
        "path": path,
        "n_layers": layers,
        "shape": {
            "parameters": 12 * layers * d * d + 2 * d * vocabulary,
            "d_model": d,
            "vocab_size": vocabulary,
        },
    }
    return {
        "machine": {"tflops": 1.0, "utilisation": 0.4, "sampling_utilisation": 0.1},
        "corpora": {
            "reviews": {"organism": "reviews", "splits": {"train": 300, "test": 200}},
            "replies": {"organism": "replies", "splits": {"train": 64, "test": 60}},
        },
        "models": {"model": model},
        "tasks": {
            "vader": {"method": "ppo", "corpus": "reviews"},
            "helpful": {"method": "dpo", "corpus": "replies"},
        },
        "autoencoders": {"tied": {}},
        "settings": {
            "ppo": {
                "steps": 2, "batch_size": 16, "mini_batch_size": 8, "epochs": 1,
                "min_characters": 40, "evaluation_prompts": 32, "warmup_steps": 1,
                "prompt_tokens": [8, 16], "new_tokens": [24, 32], "save_every": 1,
            },
            "dpo": {
                "steps": 2, "batch_size": 4, "warmup_steps": 1, "evaluate_every": 1,
                "evaluation_pairs": 16, "max_length": 64, "max_prompt_length": 32, "save_every": 1,
            },
            "divergence": {"n_layers": 4, "texts": 32, "max_tokens": 64},
            "activations": {"texts": 120, "max_tokens": 128, "held_out_texts": 16},
            "contrasts": {"contexts_per_word": 2, "words_per_class": 10, "triples": 40},
            "features": {"subjects": ["policy"], "max_tokens": 48},
            "probes": {"folds": 3, "label_shuffles": 0, "xavier_draws": 2},
            "explanations": {
                "texts": 60, "max_tokens": 64, "permutations": 99, "scored_texts": 40,
            },
            "ablation": {
                "prompts": 32, "prefix_tokens": 16, "new_tokens": 16, "random_draws": 2,
                "neutral_texts": 32,
            },
        },
        "cells": [
            {"model": "model", "task": "vader"},
            {"model": "model", "task": "helpful", "until": "probes"},
        ],
    }  # fmt: skip


def peaks_in(tree: Path, config: dict[str, Any]) -> dict[str, float]:
    """The largest peak in GB of the jobs of every script of a run in `tree`."""
    (tree / "grid.yaml").write_text(yaml.safe_dump(config))
    command = ["snakemake", "--cores", "2", "--quiet", "progress", "--configfile", "grid.yaml"]
    subprocess.run([sys.executable, "-m", *command, "--", *TARGETS], cwd=tree, check=True)
    jobs = measured(tree / "results" / "benchmarks")
    return (jobs.groupby("stage")["peak_mb"].max() * 2**20 / 1e9).to_dict()


def estimated(config: dict[str, Any]) -> dict[str, float]:
    """The estimate in GB for the jobs of every script without a GPU."""
    cells = {
        row["address"].split("/")[1]: {
            cost.stage: cost.cpu_memory_gb
            for cost in estimate.cell_costs(Cell.of_row(row, Machine(**config["machine"])))
        }
        for row in Grid(config).estimate_settings()["cells"]
    }
    return {
        script: cells["helpful" if script == "dpo" else "vader"][stage]
        for script, stage in STAGES.items()
    }


def peaks_of(shape: dict[str, int], vocabulary: int) -> dict[str, float]:
    """The largest peak in GB of the jobs of every script on a model of random weights."""
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_workflow(Path(folder) / "tree")
        model = make_model(Path(folder) / "model", shape, vocabulary)
        return peaks_in(tree, grid(model, shape, vocabulary))


def beside_estimates(peaks: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for every job: its peak in GB, by shape and script, and the estimate of today."""
    rows = []
    for name, shape, vocabulary in SHAPES:
        estimates = estimated(grid("model", shape, vocabulary))
        rows += [
            {
                "shape": name,
                "job": script,
                "measured_gb": round(peaks[name][script], 3),
                "estimate_gb": round(estimates[script], 3),
                "ratio": round(estimates[script] / peaks[name][script], 2),
            }
            for script in STAGES
        ]
    return rows


def main() -> None:
    """Print the table and write it beside the other results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--estimates", action="store_true", help="run nothing: take the peaks that are written"
    )
    path = RESULTS / "memory.json"
    peaks: dict[str, dict[str, float]] = {}
    if parser.parse_args().estimates:
        for row in json.loads(path.read_text(encoding="utf-8")):
            peaks.setdefault(row["shape"], {})[row["job"]] = row["measured_gb"]
    else:
        peaks = {name: peaks_of(shape, vocabulary) for name, shape, vocabulary in SHAPES}
    rows = beside_estimates(peaks)
    print(pd.DataFrame(rows).to_string(index=False))
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
