"""Figures of autoencoders: their training, their fidelity, and their coefficient of sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, cell_name, grid, legend_of, look
from lfp.files.addresses import labels
from lfp.files.artefacts import read_json, read_table

#: Columns of a curve that are drawn, and their names.
_COURSES = {
    "fvu": "variance unexplained", "l0": "active latents per token",
    "dead": "share of dead latents",
}  # fmt: skip


def sae_training(inputs: Sequence[str]) -> Figure:
    """Course of training on held-out activations, a row of panels for each cell.

    Lines are layers; each is the smallest autoencoder of its layer.
    """
    figure, axes = grid(len(_COURSES) * len(inputs), len(_COURSES), 3.6, 2.4)
    for row, path in enumerate(inputs):
        curve = read_table(path)
        # Of no text, nothing was trained.
        smallest = curve[curve["autoencoder"].isin(curve["autoencoder"].head(1))]
        for column, (quantity, name) in enumerate(_COURSES.items()):
            axis = axes[row * len(_COURSES) + column]
            for layer, group in smallest.groupby("layer"):
                colour = COLOURS[layer % len(COLOURS)]
                axis.plot(group["step"], group[quantity], label=f"layer {layer}", color=colour)
            axis.set(xlabel="step", ylabel=name, ylim=(0, None))
            if quantity == "fvu":
                axis.set_title(cell_name(path), loc="left", fontsize=10)
    layers = {}
    for axis in axes:
        lines, names = axis.get_legend_handles_labels()
        layers |= dict(zip(names, lines, strict=True))
    layers = dict(sorted(layers.items(), key=lambda item: int(item[0].split()[-1])))
    figure.legend(layers.values(), layers.keys(), loc="outside lower center", ncols=6)
    return figure


def sae_frontier(inputs: Sequence[str]) -> Figure:
    """FVU against L0, a line for each architecture, with a band of the noise between seeds."""
    frame = read_table(inputs[0])
    kinds = frame["architecture"] + np.where(frame["tied"].astype(bool), ", tied", "")
    frame = frame.assign(kind=kinds, reads=frame["site"] + " of the " + frame["reads"])
    panels = list(frame.groupby(["model", "task", "seed", "reads", "size"]))
    names = {name: i for i, name in enumerate(sorted(set(kinds)))}
    figure, axes = grid(len(panels))
    for axis, ((model, task, seed, reads, size), group) in zip(axes, panels, strict=True):
        for kind, rows in group.groupby("kind"):
            colour = COLOURS[names[kind] % len(COLOURS)]
            columns = ["l0", "estimate", "reseed_sd"]
            means = rows.groupby("sae")[columns].mean().sort_values("l0")
            axis.plot(means["l0"], means["estimate"], marker="o", color=colour, label=kind)
            low, high = (means["estimate"] + side * means["reseed_sd"] for side in (-1, 1))
            axis.fill_between(means["l0"], low, high, color=colour, alpha=0.2, linewidth=0)
            if len(means) == 1:  # a band of no width would not be seen
                noise = means["reseed_sd"].fillna(0)
                axis.errorbar(means["l0"], means["estimate"], noise, color=colour, capsize=3)
        title = f"{model}, {task}, seed {seed}: {reads}, {size} x width"
        axis.set(xlabel="active latents per token", ylabel="variance unexplained", ylim=(0, None))
        axis.set_title(title, fontsize=8)
    legend_of(figure, axes)
    return figure


def sae_l1_sweep(inputs: Sequence[str]) -> Figure:
    """Sparsity against reconstruction over l1, means over layers and models (paper Figure 8).

    The autoencoders of a cell differ in nothing but l1 and the model that they read.
    """
    frames = [
        pd.DataFrame(read_json(path)["autoencoders"]).assign(
            cell=cell_name(path), variant=labels(path)["sae"]
        )
        for path in inputs
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame.astype({"l0": float, "fvu": float})  # null where there was nothing to measure
    frame["l1"] = [options.get("l1", float("nan")) for options in frame["options"]]
    # An l1 that training finds for a target of L0 differs between layers; no two settings do so.
    given = frame.groupby(["cell", "variant"])["l1"].transform("nunique") == 1
    frame["setting"] = frame["l1"].where(given, -1.0)
    # The same layers for every setting: the main variant may have more.
    settings = frame.groupby(["cell", "reads", "layer"])["setting"].transform("nunique")
    frame = frame[settings == frame.groupby("cell")["setting"].transform("nunique")]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for i, ((cell, size), group) in enumerate(frame.groupby(["cell", "size"])):
        means = group.groupby("setting")[["l1", "l0", "fvu"]].mean().sort_values("l1")
        label = f"{cell}, {'' if size == 1 else size}n latents"
        left.plot(means["l1"], means["l0"], marker="o", label=label, **look(i))
        right.plot(means["l0"], means["fvu"], marker="o", **look(i))
        for row in means.to_dict("records"):
            if size == frame["size"].min():
                where = (row["l0"], row["fvu"])
                right.annotate(
                    f"l1 = {row['l1']:.2g}",
                    where,
                    textcoords="offset points",
                    xytext=(8, 6),
                    fontsize=8,
                )
    left.set(
        xscale="log",
        xlabel="l1 coefficient",
        ylabel="L0 (active latents per token)",
        ylim=(0, None),
    )
    right.set(
        xlabel="L0 (active latents per token)",
        ylabel="fraction of variance unexplained",
        ylim=(0, None),
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure
