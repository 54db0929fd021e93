"""The figure of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lfp.figures.style import cell_name, grid, look
from lfp.files.artefacts import read_table


def training_curves(inputs: Sequence[str]) -> Figure:
    """Training curves by step.

    Panels are reward, KL, entropy, value loss and clip fraction of PPO, the cross-entropy of the
    best completions, and loss and held-out accuracy of DPO.
    """
    curves = {cell_name(path): read_table(Path(path) / "training_curve.parquet") for path in inputs}
    panels = {
        "reward": ("reward", "mean of the batch"),
        "kl": ("KL to the base", "nats per completion"),
        "entropy": ("entropy", "nats per token"),
        "value_loss": ("value loss", "squared reward"),
        "clip_fraction": ("clipped ratios", "share of tokens"),
        "cross_entropy": ("best completions", "nats per token"),
        "loss": ("DPO loss", "nats per pair"),
        "held_out_accuracy": ("implicit reward accuracy", "share of held-out pairs"),
    }
    shown = [column for column in panels if any(column in curve for curve in curves.values())]
    figure, axes = grid(max(1, len(shown)), 4, 3.3, 2.7)
    if not shown:
        axes[0].set(title="nothing was trained")
    looks = {name: look(i) for i, name in enumerate(curves)}
    for axis, column in zip(axes, shown, strict=False):
        for name, curve in curves.items():
            if column in curve:
                points = curve[["step", column]].dropna()
                axis.plot(
                    points["step"],
                    points[column],
                    label=name,
                    marker="." if len(points) < 15 else None,
                    **looks[name],
                )
        axis.set(title=panels[column][0], xlabel="step", ylabel=panels[column][1])
        if column == "held_out_accuracy":
            axis.set_ylim(0.45, 1.02)
    handles = [plt.Line2D([], [], label=name, **looks[name]) for name in curves]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    return figure
