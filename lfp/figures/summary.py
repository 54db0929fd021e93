"""The figures of the summary: the main results and the health of the run, each at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, grid, legend_of
from lfp.files.artefacts import read_table
from lfp.statistics.verdicts import FALSE_ALARM, FOUND, SILENT, UNDECIDED, WRONG_SIDE

#: The probe and the words that stand for a subject, by the table that has them.
_PROBES = {
    "kendall_tau": {"probe": "ridge", "words": "all"},
    "probe_accuracy": {"probe": "logistic", "statistic": "auroc"},
}
_UNITS = {"kendall_tau": ("tau-b with the feedback", 0.0), "probe_accuracy": ("AUROC", 0.5)}
#: Splits by what they hold out; the two main ones share a colour.
_SPLITS = {"by_word": "main: by_word, by_prompt", "by_prompt": "main: by_word, by_prompt"}
_ANSWERS = {
    FOUND: COLOURS[2], SILENT: COLOURS[0], UNDECIDED: "#888888", FALSE_ALARM: COLOURS[1],
    WRONG_SIDE: COLOURS[1],
}  # fmt: skip


def probe_forest(inputs: Sequence[str]) -> Figure:
    """What probes read by subject and split: a panel per model and task, a point per seed."""
    panels = []
    for path in inputs:
        table, frame = Path(path).stem, read_table(path)
        rows = frame[frame["features"].isin(["latents", "bag_of_words"])]
        for name, value in _PROBES[table].items():
            rows = rows[rows[name] == value]
        # One dictionary stands for all: the first of each cell.
        first = rows.groupby(["model", "task", "seed"])["sae"].transform("first")
        rows = rows[rows["sae"] == first].assign(row=rows["subject"])
        rows = rows.assign(split=rows["split"].replace(_SPLITS))
        panels += [(*key, table, cell) for key, cell in rows.groupby(["model", "task"], sort=False)]
    splits = dict.fromkeys(split for *_, rows in panels for split in sorted(rows["split"]))
    colours = dict(zip(splits, COLOURS, strict=False))
    figure, axes = grid(max(1, len(panels)), 3, 4.2, 2.8)
    for axis, (model, task, table, rows) in zip(axes, panels, strict=False):
        unit, chance = _UNITS[table]
        _forest(axis, rows, by="split", colours=colours)
        axis.axvline(chance, color="black", lw=0.6)
        axis.set(title=f"{model}, {task}", xlabel=unit)
    legend_of(figure, axes)
    return figure


def ablation_forest(inputs: Sequence[str]) -> Figure:
    """What every arm of the ablation costs in reward: a panel per model and task."""
    frame = read_table(inputs[0])
    rows = frame[(frame["quantity"] == "difference") & (frame["subject"] == "policy")]
    rows = rows[~rows["arm"].str.contains(" - ")]
    matched = rows["matched_to"].fillna("")
    rows = rows.assign(row=rows["arm"].where(matched == "", "random for " + matched))
    cells = list(rows.groupby(["model", "task"], sort=False))
    colours = dict(zip(sorted(rows["action"].unique()), COLOURS, strict=False))
    figure, axes = grid(max(1, len(cells)), 3, 4.2, 2.8)
    for axis, ((model, task), of_cell) in zip(axes, cells, strict=False):
        _forest(axis, of_cell, by="action", colours=colours)
        axis.axvline(0.0, color="black", lw=0.6)
        axis.set(title=f"{model}, {task}", xlabel="change of the reward")
    legend_of(figure, axes)
    return figure


def planted_forest(inputs: Sequence[str]) -> Figure:
    """What each readout says of the planted truth, coloured by its verdict.

    A panel has a planted task of a model; numbers stand as distances from the one that they are
    held against.
    """
    frame = read_table(inputs[0])
    rows = frame[frame["of"].str.startswith("planted")].copy()
    rows["row"] = rows["readout"] + ", " + rows["of"].str.removeprefix("planted ")
    rows["row"] += ", " + rows["question"].str.extract(r"\((AUROC|tau-b|share|explained)")[0]
    for name in ("estimate", "ci_low", "ci_high"):
        rows[name] = rows[name].astype(float) - rows["against"]
    cells = list(rows.groupby(["model", "task"], sort=False))
    figure, axes = grid(max(1, len(cells)), 3, 4.6, 4.2)
    for axis, ((model, task), of_cell) in zip(axes, cells, strict=False):
        _forest(axis, of_cell, by="answer", colours=_ANSWERS)
        axis.axvline(0.0, color="black", lw=0.6)
        axis.set(title=f"{model}, {task}", xlabel="distance from no effect")
    legend_of(figure, axes)
    return figure


def gates(inputs: Sequence[str]) -> Figure:
    """The share of passed gates by quantity and cell: models, policies and dictionaries."""
    frames = [read_table(path).dropna(subset="passes") for path in inputs]
    rows = pd.concat([frame.assign(passes=frame["passes"].astype(bool)) for frame in frames])
    task = rows["task"].fillna("").map(str)
    rows["cell"] = rows["model"] + task.where(task == "", ", " + task)
    passed = rows.pivot_table("passes", "cell", "quantity", "sum", sort=False)
    asked = rows.pivot_table("passes", "cell", "quantity", "count", sort=False)
    figure, (axis,) = grid(
        1, 1, width=2.4 + 0.75 * len(asked.columns), height=1.4 + 0.32 * len(asked)
    )
    axis.imshow(
        (passed / asked).to_numpy(), vmin=0, vmax=1, cmap="RdYlBu", alpha=0.5, aspect="auto"
    )
    for (i, j), count in np.ndenumerate(asked.to_numpy()):
        if count > 0:
            counts = f"{passed.to_numpy()[i, j]:.0f}/{count:.0f}"
            axis.text(j, i, counts, ha="center", va="center", fontsize=8)
    axis.set_xticks(range(len(asked.columns)), asked.columns, rotation=40, ha="right")
    axis.set_yticks(range(len(asked)), asked.index)
    axis.grid(visible=False)
    return figure


def _forest(axis: Axes, rows: pd.DataFrame, by: str, colours: Mapping[str, str]) -> None:
    """Estimates with their intervals, a line per value of the column ``row``.

    Parameters
    ----------
    axis
        The panel.
    rows
        Rows of a table: ``row``, ``estimate``, ``ci_low``, ``ci_high`` and `by`.
    by
        The column that colours stand for.
    colours
        Colours by the values of `by`.
    """
    names = list(dict.fromkeys(rows["row"]))
    values = list(dict.fromkeys(rows[by]))
    for value, group in rows.groupby(by, sort=False):
        # Seeds lie below each other.
        offsets = group.groupby("row").cumcount() * 0.09
        shift = (values.index(value) - (len(values) - 1) / 2) * 0.14
        y = group["row"].map(names.index) + offsets + shift
        estimate = group["estimate"].astype(float)
        low, high = group["ci_low"].astype(float), group["ci_high"].astype(float)
        axis.errorbar(
            estimate, y, xerr=[(estimate - low).clip(lower=0), (high - estimate).clip(lower=0)],
            fmt="o", ms=3, lw=1, color=colours.get(value, COLOURS[-1]), label=str(value),
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
