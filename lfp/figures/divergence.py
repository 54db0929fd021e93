"""The figure of the layers' divergence from the base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, cell_name, grid, legend_of
from lfp.files.artefacts import read_json


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
    figure, axes = grid(len(titles), 2, 4.4, 3.0)
    for axis, (measure, title) in zip(axes, titles.items(), strict=True):
        for i, path in enumerate(inputs):
            choice = read_json(path)
            values = np.array(
                [row[measure] for row in choice["layers"]], dtype=float
            )  # null is nan
            axis.plot(
                range(len(values)),
                values,
                marker=".",
                label=cell_name(path),
                color=COLOURS[i % len(COLOURS)],
            )
            if measure == choice["measure"]:
                chosen = choice["chosen"]
                axis.plot(
                    chosen,
                    [values[n] for n in chosen],
                    "o",
                    mfc="none",
                    ms=9,
                    color=COLOURS[i % len(COLOURS)],
                )
        unit = "parameter units" if measure in ("mlp_l2", "block_frobenius_sum") else "share"
        axis.set(title=title, xlabel="layer", ylabel=unit, ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend_of(figure, axes)
    return figure
