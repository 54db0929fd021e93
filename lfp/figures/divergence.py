"""The figures of the layers' divergence from the base and of the place of the lesson."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, cell_name, grid, legend_of, look
from lfp.files.artefacts import read_json, read_table
from lfp.statistics.records.means import mean_record


def layer_divergence(inputs: Sequence[str]) -> Figure:
    """Divergence of every layer from the base by every measure (paper Figure 7).

    Rings mark the chosen layers.
    """
    titles = {
        "mlp_l2": "mlp_l2: norm of the MLP's change",
        "block_frobenius_sum": "block_frobenius_sum: over the whole block",
        "mlp_relative": "mlp_relative: change over norm",
        "activation": "activation: change of the MLP's output",
    }
    if any("locus" in row for path in inputs for row in read_json(path)["layers"]):
        titles["locus"] = "locus: Shapley value of the MLP"
    figure, axes = grid(len(titles), 2, 4.4, 3.0)
    for axis, (measure, title) in zip(axes, titles.items(), strict=True):
        for i, path in enumerate(inputs):
            choice = read_json(path)
            values = np.array(
                [row.get(measure) for row in choice["layers"]], dtype=float
            )  # null is nan
            axis.plot(
                range(len(values)),
                values,
                marker=".",
                label=cell_name(path),
                **look(i),
            )
            if measure == choice["measure"]:
                chosen = choice["chosen"]
                axis.plot(
                    chosen,
                    [values[n] for n in chosen],
                    "o",
                    mfc="none",
                    ms=9,
                    color=look(i)["color"],
                )
        unit = "parameter units" if measure in ("mlp_l2", "block_frobenius_sum") else "share"
        unit = "effect" if measure == "locus" else unit
        axis.set(title=title, xlabel="layer", ylabel=unit)
        axis.set_ylim(bottom=None if measure == "locus" else 0)
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend_of(figure, axes, width=2.9)
    return figure


def locus(inputs: Sequence[str]) -> Figure:
    """Shapley values of components and of layers, two panels for every cell."""
    figure, axes = grid(2 * len(inputs), 2, 4.4, 2.6)
    for path, left, right in zip(inputs, axes[::2], axes[1::2], strict=True):
        frame = read_table(path)
        effect = frame["effect"].iloc[0] if len(frame) else "nothing"
        for axis, game in ((left, "components"), (right, "layers")):
            rows = frame[frame["game"] == game]
            gap = rows.groupby("instance")["value"].sum().mean()
            about = f"gap {gap:.3f}" if len(rows) else "not measured"
            axis.set(title=f"{cell_name(path)}: {about}", ylabel=effect)
            axis.axhline(0, color="black", lw=0.8)
        components = frame[frame["game"] == "components"]
        names = list(dict.fromkeys(components["component"]))
        _bars(left, components, {name: i for i, name in enumerate(names)}, "component", COLOURS[0])
        left.set_xticks(range(len(names)), names, rotation=20)
        layers = frame[frame["game"] == "layers"]
        places = {layer: float(layer) for layer in sorted(set(layers["layer"]))}
        for i, (component, rows) in enumerate(layers.groupby("component", sort=False)):
            _bars(right, rows, places, "layer", COLOURS[i], component, 0.25 * (i - 1))
        right.set_xticks(list(places), ["outside" if n < 0 else str(n) for n in places])
        right.set(xlabel="layer")
    legend_of(figure, axes[1::2])
    return figure


def _bars(
    axis: Axes,
    rows: pd.DataFrame,
    places: dict,
    by: str,
    colour: str,
    name: str | None = None,
    shift: float = 0.0,
) -> None:
    """Bars of mean values with 95 % t intervals over instances.

    Parameters
    ----------
    axis
        The panel.
    rows
        Rows of a ``locus.parquet``.
    places
        The place of every value of the column `by` on the axis.
    by
        The column that tells bars apart.
    colour, name
        Colour of the bars, and their name in the legend.
    shift
        Distance of a bar from its place.
    """
    values = rows.groupby(by, sort=False)["value"]
    records = {key: mean_record(of.to_numpy(), "instance") for key, of in values}
    means = [record.estimate for record in records.values()]
    errors = [
        record.estimate - (record.estimate if record.ci_low is None else record.ci_low)
        for record in records.values()
    ]
    at = [places[key] + shift for key in records]
    width = 0.25 if name else 0.7
    axis.bar(at, means, width, yerr=errors, color=colour, label=name)
