"""Figures of probes: their error by word, and the latents that they read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lfp.figures.style import COLOURS, cell_name, grid, legend_of
from lfp.files.artefacts import read_tensors
from lfp.statistics.estimates import kendall_tau
from lfp.tables.validation.written import word_errors


def error_by_frequency(inputs: Sequence[str]) -> Figure:
    """Probe error of every word against its frequency in text of the policy (paper Figure 4).

    Titles have the ``tau`` of the table of this name.
    """
    cells = list(word_errors(inputs))
    figure, axes = grid(len(cells))
    for axis, (path, errors) in zip(axes, cells, strict=True):
        if len(errors) < 3:
            axis.set(title=f"{cell_name(path)}\nno probe could be trained")
            continue
        frequency, error = np.log1p(errors["written"]), errors["error"]
        for i, (name, sign) in enumerate((("positive", 1), ("negative", -1))):
            of_sign = np.sign(errors["truth"]) == sign
            axis.scatter(
                frequency[of_sign], error[of_sign], s=10, alpha=0.6, label=name, color=COLOURS[i]
            )
        never = f"{(errors['written'] == 0).mean():.0%} never written"
        varied = np.ptp(error) > 0 and np.ptp(frequency) > 0
        tau = f"{kendall_tau(-error, errors['written']):.2f}" if varied else "not estimated"
        agreement = f"tau-b of accuracy: {tau}"
        axis.set(title=f"{cell_name(path)}\n{agreement}\n{len(error)} words, {never}")
        axis.set(xlabel="log(1 + times the policy wrote the word)", ylabel="|predicted - valence|")
    legend_of(figure, axes)
    return figure


def probe_pca(inputs: Sequence[str]) -> Figure:
    """First two principal components of the standardised features of answers (paper Figure 5)."""
    figure, axes = grid(len(inputs))
    for axis, path in zip(axes, inputs, strict=True):
        tensors = read_tensors(path, ["latents.positive", "latents.negative"])
        x = np.concatenate(list(tensors.values())).astype(np.float64)
        x = x[:, x.std(0) > 0] if len(x) else x[:, :0]
        if x.shape[1] < 2:
            axis.set(title=f"{cell_name(path)}\nfewer than two features are active")
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
            title=cell_name(path),
            xlabel=f"PC 1 ({share[0]:.0%} of variance)",
            ylabel=f"PC 2 ({share[1]:.0%} of variance)",
        )
    legend_of(figure, axes)
    return figure
