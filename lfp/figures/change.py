"""The figure of what feedback changed, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, grid, legend_of
from lfp.files.artefacts import read_table
from lfp.tables.change.noise_range import beside_seeds


def choice_by_layer(inputs: Sequence[str]) -> Figure:
    """Agreement of what each layer's components changed at the choice with the feedback.

    A panel per model and task has a line per component, the mean over seeds; bands are the range of
    policies of another task, whose reward is noise, crosses copies of the base with noise on their
    weights.
    """
    (path,) = inputs
    table = read_table(path)
    drawn = (table["readout"] == "choice") & (table["layer"] >= 0)
    layers = table[drawn & table["part"].isin(("attention", "mlp"))]  # heads would hide them
    cells = list(layers.groupby(["model", "task"], sort=False))
    figure, axes = grid(max(1, len(cells)), 3, 3.6, 2.8)
    for axis, ((model, task), of_cell) in zip(axes, cells, strict=False):
        for colour, (part, rows) in zip(COLOURS, of_cell.groupby("part"), strict=False):
            policy = rows[rows["subject"] == "policy"]
            by_layer = policy.groupby("layer")["estimate"].mean()
            axis.plot(by_layer.index, by_layer, marker=".", color=colour, label=part)
            band = _band(policy, layers[(layers["model"] == model) & (layers["part"] == part)])
            if band["null_low"].notna().any():
                axis.fill_between(
                    band.index, band["null_low"], band["null_high"], color=colour, alpha=0.15,
                    label=f"{part}, noise reward",
                )  # fmt: skip
            noise = rows[rows["subject"] != "policy"]
            axis.plot(
                noise["layer"], noise["estimate"], "x", ms=3, color=colour, alpha=0.5,
                label=f"{part}, noise on weights",
            )  # fmt: skip
        statistic = of_cell["statistic"].iloc[0]
        axis.axhline(0.5 if statistic == "auroc" else 0.0, color="black", lw=0.6)
        unit = "AUROC of preferred" if statistic == "auroc" else "tau-b with valence"
        axis.set(title=f"{model}, {task}", xlabel="layer", ylabel=unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend_of(figure, axes)
    return figure


def _band(policy: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The range of noise rewards by layer that a policy's mean over seeds is held against.

    `policy` has its rows, and `rows` those of all tasks of the model, of one component.
    """
    of_policies = rows[rows["subject"] == "policy"]
    bands = {
        layer: beside_seeds(seeds, of_policies[of_policies["layer"] == layer])
        for layer, seeds in policy.groupby("layer")
    }
    return pd.DataFrame(bands, index=["null_low", "null_high"], dtype=float).T
