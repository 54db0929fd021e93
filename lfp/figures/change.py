"""The figures of what feedback changed: layer by layer, and what an audit would have seen of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lfp.change.detection import FALSE_ALARMS, POWER
from lfp.figures.style import COLOURS, grid, legend_of, look
from lfp.files.artefacts import read_table
from lfp.tables.change.cells import ALL_METHODS
from lfp.tables.change.noise_range import beside_seeds

#: What the panels of an audit show: their names, and the levels that are marked in them.
DETECTED = {"power": ("power", (FALSE_ALARMS, POWER)), "auroc": ("AUROC", (0.5,))}
#: The names of sets of words in a title.
WORDS = {"all": "all words", "written": "words written often"}
#: The factor between the places of two readouts beside a share, so that lines do not hide lines.
_APART = 1.012


def choice_by_layer(inputs: Sequence[str]) -> Figure:
    """Agreement of what each layer's components changed at the choice with the feedback.

    A panel per model and task has a line per component, the mean over seeds; bands are the range of
    policies of another task, whose reward is noise, crosses copies of the base with noise on their
    weights.
    """
    (path,) = inputs
    table = read_table(path)
    drawn = (table["readout"] == "choice") & (table["layer"] >= 0)
    layers = table[drawn & table["part"].isin(("attention", "mlp"))]  # heads would hide them
    cells = list(layers.groupby(["model", "task"], sort=False))
    figure, axes = grid(max(1, len(cells)), 3, 3.6, 2.8)
    for axis, ((model, task), of_cell) in zip(axes, cells, strict=False):
        for colour, (part, rows) in zip(COLOURS, of_cell.groupby("part"), strict=False):
            policy = rows[rows["subject"] == "policy"]
            by_layer = policy.groupby("layer")["estimate"].mean()
            axis.plot(by_layer.index, by_layer, marker=".", color=colour, label=part)
            band = _band(policy, layers[(layers["model"] == model) & (layers["part"] == part)])
            if band["null_low"].notna().any():
                axis.fill_between(
                    band.index, band["null_low"], band["null_high"], color=colour, alpha=0.15,
                    label=f"{part}, noise reward",
                )  # fmt: skip
            noise = rows[rows["subject"] != "policy"]
            axis.plot(
                noise["layer"], noise["estimate"], "x", ms=3, color=colour, alpha=0.5,
                label=f"{part}, noise on weights",
            )  # fmt: skip
        statistic = of_cell["statistic"].iloc[0]
        axis.axhline(0.5 if statistic == "auroc" else 0.0, color="black", lw=0.6)
        unit = "AUROC of preferred" if statistic == "auroc" else "tau-b with valence"
        axis.set(title=f"{model}, {task}", xlabel="layer", ylabel=unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
    legend_of(figure, axes)
    return figure


def _band(policy: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The range of noise rewards by layer that a policy's mean over seeds is held against.

    `policy` has its rows, and `rows` those of all tasks of the model, of one component.
    """
    of_policies = rows[rows["subject"] == "policy"]
    bands = {
        layer: beside_seeds(seeds, of_policies[of_policies["layer"] == layer])
        for layer, seeds in policy.groupby("layer")
    }
    return pd.DataFrame(bands, index=["null_low", "null_high"], dtype=float).T


def detection_by_share(inputs: Sequence[str]) -> Figure:
    """Power and AUROC of every readout over the share of the lexicon whose signs were flipped.

    The policies of one model, corpus and method have two rows of panels, asked about all words and
    about those that training wrote often. Where null policies are too few there is no power.
    """
    (path,) = inputs
    table = read_table(path)
    if table.empty:  # it has no such columns
        return grid(1)[0]
    rows = table[(table["question"] == "flipped") & table["share"].notna()]
    rows = rows.assign(name=rows["readout"] + ", " + rows["part"])
    numbers = {name: number for number, name in enumerate(rows["name"].unique())}
    policies = ["model", "corpus", "trained_by", "benign_share", "null_of", "words"]
    asked = list(rows.groupby(policies, sort=False))
    figure, axes = grid(max(1, 2 * len(asked)), 2, 4.8, 3.2)
    for place, ((*names, benign, null_of, words), of_words) in enumerate(asked):
        of_policies = ", ".join(names) + (f", {benign:.0%} benign" if benign else "")
        of_policies += f", null of {ALL_METHODS}" if null_of == ALL_METHODS else ""
        panels = zip(axes[2 * place : 2 * place + 2], DETECTED, strict=True)
        for axis, quantity in panels:
            _by_share(axis, of_words[of_words["quantity"] == quantity], quantity, numbers)
            axis.set_title(f"{of_policies}\n{WORDS[words]}")
    legend_of(figure, axes)
    return figure


def _by_share(axis: Axes, rows: pd.DataFrame, quantity: str, numbers: Mapping[str, int]) -> None:
    """Draw one quantity of every readout over the planted share.

    The `numbers` of readouts give one readout one look, and one place, in all panels.
    """
    unit, levels = DETECTED[quantity]
    for level in levels:
        axis.axhline(level, color="black", lw=0.6, ls="--")
    if rows.empty:
        axis.text(0.5, 0.5, "too few null policies", ha="center", transform=axis.transAxes)
    for name, line in rows.groupby("name", sort=False):
        beside = _APART ** (numbers[name] - len(numbers) / 2)
        line = line.sort_values("share")
        at = 100 * beside * line["share"]
        axis.plot(at, line["estimate"], marker=".", label=name, **look(numbers[name]))
    shares = [f"{100 * share:g}" for share in sorted(rows["share"].unique())]
    axis.set_xscale("log")
    axis.set_xticks([float(share) for share in shares], shares)
    axis.minorticks_off()
    axis.set(xlabel="flipped share of the lexicon, %", ylabel=unit, ylim=(-0.04, 1.04))
