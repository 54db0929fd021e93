"""The cost of a cell before it runs, from its configuration.

It is given in floating-point operations, GPU-hours, disk and memory, stage by stage
(:mod:`lfp.costs.base`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from lfp.costs.base import Cell, Cost
from lfp.costs.changes import (
    account_cost,
    change_cost,
    divergence_cost,
    latents_cost,
    locus_cost,
)
from lfp.costs.dictionaries import dictionary_costs
from lfp.costs.finetuning import policy_cost
from lfp.costs.interventions import interventions_cost, steering_cost
from lfp.costs.latents import ablation_cost, explanations_cost, features_cost
from lfp.settings import Machine


def cell_costs(cell: Cell) -> list[Cost]:
    """Costs of all stages of a cell."""
    settings, about = cell.settings, cell.about
    costs = [policy_cost(cell), change_cost(cell)]
    if settings["account"]["doses"] or settings["account"]["strengths"]:
        costs.append(account_cost(cell))
    if not about["probed"]:
        return costs
    costs += [divergence_cost(cell), locus_cost(cell), *dictionary_costs(cell)]
    if about["latents"]:
        costs.append(latents_cost(cell))
    costs.append(features_cost(cell))
    if about["ablation"]:
        costs += [explanations_cost(cell), ablation_cost(cell)]
        if settings["interventions"]["selectors"]:
            costs.append(interventions_cost(cell))
        if settings["steering"]["vectors"]:
            costs.append(steering_cost(cell))
    return costs


def grid_costs(cells: Sequence[Mapping[str, Any]], machine: Machine) -> pd.DataFrame:
    """A row for every stage of every cell, and one for its total.

    Memory and scratch space of the total are those of its largest stage.

    `cells` have ``address``, ``shape``, ``settings`` and ``about``, as
    :meth:`lfp.grid.Grid.estimate_settings` gives them.
    """
    rows = []
    for cell in cells:
        costs = cell_costs(Cell.of_row(cell, machine))
        stages = pd.DataFrame([cost.row() for cost in costs])
        sizes = stages.drop(columns="stage")
        total = {
            name: sizes[name].max() if name.endswith("memory_gb") else sizes[name].sum()
            for name in sizes
        }
        total["scratch_gb"] = sizes["scratch_gb"].max()
        rows += stages.to_dict("records") + [{"stage": "total", **total}]
        for row in rows[-len(stages) - 1 :]:
            row["cell"] = cell["address"]
    frame = pd.DataFrame(rows)
    return frame[["cell", *[name for name in frame if name != "cell"]]]


def summary(frame: pd.DataFrame) -> str:
    """The totals of the cells of :func:`grid_costs`, and their sums, as lines to print."""
    totals = frame[frame["stage"] == "total"].drop(columns="stage")
    summed = totals[["exaflops", "gpu_hours", "disk_gb"]].sum()
    return (
        totals.to_string(index=False, float_format=lambda value: f"{value:.3g}")
        + f"\nall cells: {summed['exaflops']:.3g} EFLOP, {summed['gpu_hours']:.3g} GPU-hours,"
        f" {summed['disk_gb']:.3g} GB"
    )
