"""The figures, each a function of the artefacts of all cells; :data:`FIGURES` names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from lfp.files.artefacts import read_json, read_table, read_tensors
from lfp.files.writing import aside
from lfp.probing.probes import unit_means
from lfp.tables.rows import labels
from lfp.texts.words import count_words

#: Okabe-Ito colours: distinguishable with every common form of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE = {
    "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "font.size": 10,
    "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False, "svg.hashsalt": "lfp",
    "savefig.dpi": 150,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}  # fmt: skip


def _name(path: str) -> str:
    cell = labels(path)
    return f"{cell['model']}, {cell['task']}" + (f", seed {cell['seed']}" if cell["seed"] else "")


def _grid(
    n: int, columns: int = 3, width: float = 3.6, height: float = 3.0
) -> tuple[Figure, np.ndarray]:
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    for axis in axes.flat[n:]:
        axis.set_visible(False)
    return figure, axes.flat[:n]


def _legend_of(figure: Figure, axes: Sequence[plt.Axes]) -> None:
    """The legend of the first panel that shows anything, below all of them."""
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        if handles:
            columns = max(1, int(figure.get_figwidth() / 2.2))  # inches that the longest names take
            figure.legend(
                handles, names, loc="outside lower center", ncols=min(columns, len(handles))
            )
            return


def training_curves(inputs: Sequence[str]) -> Figure:
    """Reward, KL, entropy, value loss and clip fraction of PPO; loss and held-out accuracy of DPO,
    by step.
    """
    curves = {_name(path): read_table(Path(path) / "training_curve.parquet") for path in inputs}
    panels = {
        "reward": ("reward", "mean of the batch"), "kl": ("KL to the base", "nats per completion"),
        "entropy": ("entropy", "nats per token"), "value_loss": ("value loss", "squared reward"),
        "clip_fraction": ("clipped ratios", "share of tokens"),
        "loss": ("DPO loss", "nats per pair"),
        "held_out_accuracy": ("implicit reward accuracy", "share of held-out pairs"),
    }  # fmt: skip
    shown = [column for column in panels if any(column in curve for curve in curves.values())]
    figure, axes = _grid(max(1, len(shown)), 4, 3.3, 2.7)
    if not shown:
        axes[0].set(title="nothing was trained")
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(curves)}
    for axis, column in zip(axes, shown, strict=False):
        for name, curve in curves.items():
            if column in curve:
                points = curve[["step", column]].dropna()
                axis.plot(
                    points["step"],
                    points[column],
                    label=name,
                    color=colour[name],
                    marker="." if len(points) < 15 else None,
                )
        axis.set(title=panels[column][0], xlabel="step", ylabel=panels[column][1])
        if column == "held_out_accuracy":
            axis.set_ylim(0.45, 1.02)
    handles = [plt.Line2D([], [], color=colour[name], label=name) for name in curves]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    return figure


def layer_divergence(inputs: Sequence[str]) -> Figure:
    """Divergence of every layer from the base by every measure (paper Figure 7); rings mark the
    chosen layers.
    """
    titles = {
        "mlp_l2": "mlp_l2: norm of the MLP's change",
        "block_frobenius_sum": "block_frobenius_sum: over the whole block",
        "mlp_relative": "mlp_relative: change over norm",
        "activation": "activation: change of the MLP's output",
    }  # fmt: skip
    figure, axes = _grid(len(titles), 2, 4.4, 3.0)
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
                label=_name(path),
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
    _legend_of(figure, axes)
    return figure


def sae_l1_sweep(inputs: Sequence[str]) -> Figure:
    """Sparsity against reconstruction over l1, means over layers (paper Figure 8); tied
    autoencoders only.
    """
    frames = [
        pd.DataFrame(read_json(path)["autoencoders"]).assign(
            cell=_name(path), variant=labels(path)["sae"]
        )
        for path in inputs
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame["tied"]].astype(
        {"l0": float, "fvu": float}
    )  # null where there was nothing to measure
    # The same layers for every l1: the probed variant may have more.
    common = frame.groupby(["cell", "layer"])["variant"].transform("nunique") == frame.groupby(
        "cell"
    )["variant"].transform("nunique")
    frame = frame[common]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for i, ((cell, size), group) in enumerate(frame.groupby(["cell", "size"])):
        means = group.groupby("l1")[["l0", "fvu"]].mean()
        label = f"{cell}, {'n' if size == 'small' else '2n'} features"
        left.plot(
            means.index, means["l0"], marker="o", label=label, color=COLOURS[i % len(COLOURS)]
        )
        right.plot(means["l0"], means["fvu"], marker="o", color=COLOURS[i % len(COLOURS)])
        for l1, row in means.iterrows():
            if size == "small":
                where = (row["l0"], row["fvu"])
                right.annotate(
                    f"l1 = {l1:g}", where, textcoords="offset points", xytext=(8, 6), fontsize=8
                )
    left.set(
        xscale="log",
        xlabel="l1 coefficient",
        ylabel="L0 (active features per token)",
        ylim=(0, None),
    )
    right.set(
        xlabel="L0 (active features per token)",
        ylabel="fraction of variance unexplained",
        ylim=(0, None),
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def error_by_frequency(inputs: Sequence[str]) -> Figure:
    """Probe error of every word against how often the policy writes it (paper Figure 4)."""
    predictions = [path for path in inputs if path.endswith("predictions.parquet")]
    figure, axes = _grid(len(predictions))
    for axis, path in zip(axes, predictions, strict=True):
        frame = read_table(path)
        shown = (
            (frame["features"] == "latents")
            & (frame["split"] == "by_word")
            & (frame["probe"] == "ridge")
        )
        means = unit_means(frame[shown])
        if len(means) < 3 or means["prediction"].isna().any():
            axis.set(title=f"{_name(path)}\nno probe could be trained")
            continue
        factor = (means["prediction"] @ means["truth"]) / (
            means["prediction"] @ means["prediction"]
        )
        error = (means["prediction"] * factor - means["truth"]).abs()
        cell = labels(path)
        part = f"{cell['model']}/{cell['task']}/seed{cell['seed']}/"
        completions = read_table(
            next(other for other in inputs if part in other and "/ablation/" in other)
        )
        written = completions.loc[completions["arm"] == "none", "completion"]
        counts = Counter(word for text in written for word in count_words(text))
        frequency = np.log1p([counts[word] for word in means["unit"]])
        rho = stats.spearmanr(frequency, error)
        sign = np.where(means["truth"] > 0, "positive", "negative")
        for i, name in enumerate(("positive", "negative")):
            axis.scatter(
                frequency[sign == name],
                error[sign == name],
                s=10,
                alpha=0.6,
                label=name,
                color=COLOURS[i],
            )
        found = f"Spearman {rho.statistic:.2f} (p={rho.pvalue:.2g}, {len(error)} words)"
        axis.set(title=f"{_name(path)}\n{found}")
        axis.set(xlabel="log(1 + times the policy wrote the word)", ylabel="|predicted - valence|")
    _legend_of(figure, axes)
    return figure


def probe_pca(inputs: Sequence[str]) -> Figure:
    """First two principal components of the standardised features of answers (paper Figure 5)."""
    figure, axes = _grid(len(inputs))
    for axis, path in zip(axes, inputs, strict=True):
        tensors = read_tensors(path, ["latents.positive", "latents.negative"])
        x = np.concatenate(list(tensors.values())).astype(np.float64)
        x = x[:, x.std(0) > 0] if len(x) else x[:, :0]
        if x.shape[1] < 2:
            axis.set(title=f"{_name(path)}\nfewer than two features are active")
            continue
        x = (x - x.mean(0)) / x.std(0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        share = s**2 / (s**2).sum()
        half = len(tensors["latents.positive"])
        for i, (name, part) in enumerate(
            (("preferred", slice(half)), ("rejected", slice(half, None)))
        ):
            axis.scatter(
                u[part, 0] * s[0], u[part, 1] * s[1], s=8, alpha=0.5, label=name, color=COLOURS[i]
            )
        axis.set(
            title=_name(path),
            xlabel=f"PC 1 ({share[0]:.0%} of variance)",
            ylabel=f"PC 2 ({share[1]:.0%} of variance)",
        )
    _legend_of(figure, axes)
    return figure


FIGURES: dict[str, Callable[[Sequence[str]], Figure]] = {
    figure.__name__: figure
    for figure in (training_curves, layer_divergence, sae_l1_sweep, error_by_frequency, probe_pca)
}


def save(name: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Draw a figure and write it to every path of `outputs` (.svg, .png); bytes depend on the
    inputs alone.
    """
    with plt.rc_context(STYLE):
        figure = FIGURES[name](inputs)
        for path in outputs:
            kind = Path(path).suffix[1:]
            with aside(path) as temporary:
                figure.savefig(
                    temporary,
                    format=kind,
                    metadata={"Date": None} if kind == "svg" else {"Software": None},
                )
        plt.close(figure)
