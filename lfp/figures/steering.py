"""The figure of what vectors gain over what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, grid, legend_of
from lfp.files.artefacts import read_table

#: Costs of the two panels of a cell.
COSTS = {"d_ce": "rise in cross-entropy, nats per token", "kl": "KL, nats per completion"}
MARKERS = ".sD^vP"


def intervention_frontiers(inputs: Sequence[str]) -> Figure:
    """Gain in reward over the rise in cross-entropy, and over the KL, of every vector.

    A cell has a panel for each of the two costs, a line per vector, a point for the prompt, where
    it costs anything, and a band between the least and the largest gain of random vectors.
    """
    (path,) = inputs
    table = read_table(path)
    drawn = table[table["action"].isin(("add", "baseline")) & table["estimate"].notna()]
    cells = list(drawn.groupby(["model", "task", "seed"], sort=False))
    numbers = {what: number for number, what in enumerate(drawn["what"].unique())}
    figure, axes = grid(max(1, 2 * len(cells)), 2, 4.4, 4.4)
    for place, ((model, task, seed), rows) in enumerate(cells):
        for axis, (cost, name) in zip(axes[2 * place : 2 * place + 2], COSTS.items(), strict=True):
            _draw(axis, rows, cost, numbers)
            axis.axhline(0.0, color="black", lw=0.6)
            title = f"{model}, {task}" + (f", seed {seed}" if seed else "")
            axis.set(title=title, xlabel=name, ylabel="gain in reward")
            axis.locator_params(axis="x", nbins=6)
    legend_of(figure, axes, width=2.9)
    return figure


def _draw(axis: Axes, rows: pd.DataFrame, cost: str, numbers: Mapping[str, int]) -> None:
    """Draw the lines of a cell over one cost, and the band of random vectors.

    The `numbers` of vectors give one vector one colour in all cells.
    """
    added = rows[(rows["action"] == "add") & rows["random_low"].notna()].assign(at=rows[cost])
    if cost == "kl":
        added["at"] = rows["kl"] * rows["kl_ratio"]
    if not added.empty:
        band = added.groupby("strength", sort=False)[["at", "random_low", "random_high"]].mean()
        band = band.sort_values("at")
        axis.fill_between(band["at"], band["random_low"], band["random_high"], color="0.85",
                          label="random vectors")  # fmt: skip
    for (what, where), line in rows.groupby(["what", "where"], sort=False):
        number, ordered = numbers[what], line.sort_values(cost)
        style = {"color": COLOURS[number % len(COLOURS)], "label": _name(what, where)}
        if what == "prompt":
            shown = ordered[ordered[cost] >= 0]
            axis.plot(shown[cost], shown["estimate"], "*", ms=9, **style)
        else:
            marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
            x, y = [0.0, *ordered[cost]], [0.0, *ordered["estimate"]]
            axis.plot(x, y, marker=marker, ls=_dashes(where), **style)


def _dashes(where: str) -> str:
    """The style of a line: whole at all tokens, dashed behind a gate, dotted behind a blind one."""
    if where == "all":
        return "-"
    return ":" if where.startswith("shuffled") else "--"


def _name(what: str, where: str) -> str:
    return what if where == "all" else f"{what}, {where}"
