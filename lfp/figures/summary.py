"""The figures of the summary: the main results and the health of the run, each at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
#: Inches of a line of a forest, and of what is above and below all lines of a panel; the lines that
#: a label is high.
_PITCH, _FRAME, _LABEL = 0.055, 0.9, 3


class _Panel(NamedTuple):
    """A panel of a forest: its title, its rows, their unit and the number that means nothing."""

    title: str
    rows: pd.DataFrame
    unit: str
    nothing: float = 0.0


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
        unit, chance = _UNITS[table]
        panels += _panels(rows, unit, chance)
    splits = dict.fromkeys(split for panel in panels for split in sorted(panel.rows["split"]))
    return _forest(panels, "split", dict(zip(splits, COLOURS, strict=False)), 4.2, 2.8)


def ablation_forest(inputs: Sequence[str]) -> Figure:
    """What every arm of the ablation costs in reward: a panel per model and task."""
    frame = read_table(inputs[0])
    rows = frame[(frame["quantity"] == "difference") & (frame["subject"] == "policy")]
    rows = rows[~rows["arm"].str.contains(" - ")]
    matched = rows["matched_to"].fillna("")
    rows = rows.assign(row=rows["arm"].where(matched == "", "random for " + matched))
    colours = dict(zip(sorted(rows["action"].unique()), COLOURS, strict=False))
    return _forest(_panels(rows, "change of the reward"), "action", colours, 4.2, 2.8)


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
    return _forest(_panels(rows, "distance from no effect"), "answer", _ANSWERS, 4.6, 4.2)


def gates(inputs: Sequence[str]) -> Figure:
    """The share of passed gates by quantity and cell: models, policies and dictionaries."""
    # A table without rows has no such column.
    frames = [frame for frame in map(read_table, inputs) if "passes" in frame]
    rows = pd.concat(frames).dropna(subset="passes").astype({"passes": bool})
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


def _panels(rows: pd.DataFrame, unit: str, nothing: float = 0.0) -> list[_Panel]:
    cells = rows.groupby(["model", "task"], sort=False)
    return [_Panel(f"{model}, {task}", cell, unit, nothing) for (model, task), cell in cells]


def _forest(
    panels: Sequence[_Panel], by: str, colours: Mapping[str, str], width: float, height: float
) -> Figure:
    """Estimates with their intervals, a line per value of the column ``row``.

    Parameters
    ----------
    panels
        Panels, whose rows have ``row``, ``estimate``, ``ci_low``, ``ci_high`` and `by`.
    by
        The column that colours stand for.
    colours
        Colours by the values of `by`.
    width, height
        Size of a panel in inches; it is higher where its lines need more.
    """
    most = max((_places(panel.rows, by).max() for panel in panels if len(panel.rows)), default=0)
    figure, axes = grid(max(1, len(panels)), 3, width, max(height, _FRAME + _PITCH * most))
    for axis, panel in zip(axes, panels, strict=False):
        _lines(axis, panel.rows, by, colours)
        axis.axvline(panel.nothing, color="black", lw=0.6)
        axis.set(title=panel.title, xlabel=panel.unit)
    legend_of(figure, axes)
    return figure


def _places(rows: pd.DataFrame, by: str) -> pd.Series:
    """The place of every line from the top, in lines: those of one name stand together.

    Within a name they go by the value of `by`, and seeds lie below each other. A name takes room
    for its label, however few its lines.
    """
    order = [rows[name].map(list(dict.fromkeys(rows[name])).index) for name in ("row", by)]
    ordered = pd.DataFrame({"row": order[0], "by": order[1]}).sort_values(["row", "by"])
    lines = ordered.groupby("row").cumcount()
    count = ordered["row"].value_counts().sort_index()
    room = np.maximum(count + 1, _LABEL)
    above = ordered["row"].map(room.cumsum() - room + (room - count) / 2)
    return (above + lines).reindex(rows.index)


def _lines(axis: Axes, rows: pd.DataFrame, by: str, colours: Mapping[str, str]) -> None:
    places = _places(rows, by)
    for value, group in rows.groupby(by, sort=False):
        estimate = group["estimate"].astype(float)
        low, high = group["ci_low"].astype(float), group["ci_high"].astype(float)
        axis.errorbar(
            estimate, places[group.index],
            xerr=[(estimate - low).clip(lower=0), (high - estimate).clip(lower=0)],
            fmt="o", ms=3, lw=1, color=colours.get(value, COLOURS[-1]), label=str(value),
        )  # fmt: skip
    middles = places.groupby(rows["row"], sort=False).mean()
    axis.set_yticks(middles, middles.index)
    axis.invert_yaxis()
