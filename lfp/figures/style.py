"""The look that all figures share: colours, a grid of panels and a legend; and their saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lfp.files.addresses import labels
from lfp.files.writing import aside

#: Okabe-Ito colours: distinguishable with every common form of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 10, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "svg.hashsalt": "lfp", "savefig.dpi": 150, "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}  # fmt: skip
#: Line styles, of which every turn of the colours has another.
LINES = ("-", "--", ":", "-.")
#: What a figure without inputs says.
NOTHING = "No cell of the configuration has anything to show in this figure."


def look(index: int) -> dict[str, str]:
    """Colour and line style of the n-th line of a panel; 28 lines differ."""
    turn, place = divmod(index, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[turn % len(LINES)]}


def cell_name(path: str) -> str:
    """The name of an artefact's cell in a figure: model, task, and the seed where it is not 0."""
    cell = labels(path)
    return f"{cell['model']}, {cell['task']}" + (f", seed {cell['seed']}" if cell["seed"] else "")


def grid(
    n: int, columns: int = 3, width: float = 3.6, height: float = 3.0
) -> tuple[Figure, np.ndarray]:
    """A figure of `n` panels in at most so many `columns`, each of a width and height in inches."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return figure, axes.flat[:n]


def legend_of(figure: Figure, axes: Sequence[plt.Axes], width: float = 2.2) -> None:
    """Put one legend of all that the panels show below them.

    `width` are the inches that the longest of its names takes.
    """
    entries: dict[str, Artist] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if entries:
        columns = max(1, int(figure.get_figwidth() / width))
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center",
            ncols=min(columns, len(entries)),
        )  # fmt: skip


def save(
    draw: Callable[[Sequence[str]], Figure], inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Draw a figure and write it to every path of `outputs` (.svg, .png).

    A figure that is asked for by name, and for which no cell has an input, says so. The bytes
    depend on the inputs alone.
    """
    with plt.rc_context(STYLE):
        figure = draw(inputs) if inputs else _nothing()
        for path in outputs:
            kind = Path(path).suffix[1:]
            with aside(path) as temporary:
                figure.savefig(
                    temporary,
                    format=kind,
                    metadata={"Date": None} if kind == "svg" else {"Software": None},
                )
        plt.close(figure)


def _nothing() -> Figure:
    figure, (axis,) = grid(1, width=6.4, height=1.0)
    axis.set_axis_off()
    axis.text(0.5, 0.5, NOTHING, ha="center", va="center")
    return figure
