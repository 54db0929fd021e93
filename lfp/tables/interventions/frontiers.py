"""The frontiers of steering: how much reward each vector gives over costs, and its cleaning.

The points of a vector are its strengths. The line through them begins at the untouched model, which
costs nothing and gains nothing. Its area up to a cost, divided by that cost, is the mean gain over
costs: one number for a whole line, in units of reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_table
from lfp.statistics.crossed import effect_record, mean_effect
from lfp.statistics.records import ratio_record, undefined
from lfp.tables.rows import CELL, TableSettings, Tally

#: What is added at costs, what random vectors are matched to, and doses of the fine-tuning.
_ADD, _VECTORS, _DOSE = "add", "vectors", "fine_tuning"


def frontier_area(costs: Sequence[float], gains: np.ndarray, most: float) -> np.ndarray:
    """The mean gain in reward over costs from 0 to `most`.

    Gains between two points lie on the line through them. A line that ends before `most` is not
    prolonged.

    Parameters
    ----------
    costs
        Costs [point], all above 0, such as nats of KL or of cross-entropy.
    gains
        Rewards minus those of the untouched model [point, ...].
    most
        The cost at which the area ends.

    Returns
    -------
    numpy.ndarray
        [...] in units of the reward; NaN without points or where all cost less than `most`.
    """
    gains = np.asarray(gains, float)
    order = np.argsort(costs, kind="stable")
    x = np.concatenate([[0.0], np.asarray(costs, float)[order]])
    if len(x) < 2 or not np.isfinite(x).all() or x[-1] < most * (1 - 1e-9) or most <= 0:
        return np.full(gains.shape[1:], np.nan)
    y = np.concatenate([np.zeros((1, *gains.shape[1:])), gains[order]])
    last = int(np.searchsorted(x, most * (1 - 1e-9)))
    share = (most - x[last - 1]) / (x[last] - x[last - 1])
    end = y[last - 1] + share * (y[last] - y[last - 1])
    x, y = np.append(x[:last], most), np.concatenate([y[:last], end[None]])
    return np.trapezoid(y, x, axis=0) / most


def frontiers(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The mean gain in reward of every vector over all costs up to the largest."""
    tally = Tally()
    for path in of(inputs, "completions.parquet"):
        cell, rows = labels(path), read_table(path)
        if rows.empty:
            nothing = undefined(0, "prompt", "no held-out text to prompt with")
            tally.add(nothing, cell | {"what": "none", "where": ""}, **_no_columns())
            continue
        _add_cell(tally, cell, rows, settings)
    return tally


def _no_columns() -> dict[str, object]:
    names = ("most_cost", "kl_area", "most_kl", "null_mean", "null_low", "null_high", "p_random")
    return {"points": 0, "draws": 0} | dict.fromkeys(names, None)


def _lines(
    rows: pd.DataFrame,
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]]:
    """Every line: its labels, its costs [point], gains [point, prompt], and KLs [point]."""
    before = rows[rows["what"] == "none"].set_index("prompt")["reward"]
    scaled = rows[(rows["action"] == _ADD) | (rows["what"] == _DOSE)]
    for key, line in scaled.groupby(["what", "where", "draw", "matched_to"], sort=False):
        points = line.pivot(index="strength", columns="prompt", values="reward")
        kl = line.groupby("strength")["kl"].mean().to_numpy()
        named = dict(zip(("what", "where", "draw", "matched_to"), key, strict=True))
        gains = points.to_numpy(float) - before[points.columns].to_numpy(float)
        yield named, points.index.to_numpy(float), gains, kl


def _add_cell(
    tally: Tally, cell: Mapping[str, Any], rows: pd.DataFrame, settings: TableSettings
) -> None:
    """Add the lines of one cell; random vectors are what the others are held against."""
    lines = list(_lines(rows))
    if all(of_line["matched_to"] == _VECTORS for of_line, *_ in lines):
        nothing = undefined(0, "prompt", "nothing comes to a cost that was asked for")
        tally.add(nothing, cell | {"what": "none", "where": ""}, **_no_columns())
        return
    most = float(max((costs.max() for _, costs, _, _ in lines), default=np.nan))
    most_kl = min((kl.max() for of_line, _, _, kl in lines if of_line["matched_to"] == ""),
                  default=np.nan)  # fmt: skip
    null = np.array([
        frontier_area(costs, gains.mean(1), most)
        for of_line, costs, gains, _ in lines
        if of_line["matched_to"] == _VECTORS
    ])  # fmt: skip
    null = null[np.isfinite(null)]
    for named, costs, gains, kl in lines:
        if named["matched_to"] == _VECTORS:
            continue
        label = cell | {"what": named["what"], "where": named["where"]}
        columns = _no_columns() | {"points": len(costs), "most_cost": most}
        by_prompt = frontier_area(costs, gains, most)
        if np.isnan(by_prompt).any():
            short = undefined(0, "prompt", f"no strength costs {most:g} nats")
            tally.add(short, label, **columns)
            continue
        columns |= {"kl_area": float(frontier_area(kl, gains.mean(1), most_kl)), "most_kl": most_kl}
        if len(null) and named["what"] != _DOSE:
            area = frontier_area(costs, gains.mean(1), most)  # as those of the null: ties are ties
            larger = int((np.abs(null) >= abs(area)).sum())
            columns |= {
                "draws": len(null), "null_mean": float(null.mean()), "null_low": float(null.min()),
                "null_high": float(null.max()), "p_random": (1 + larger) / (1 + len(null)),
            }  # fmt: skip
        name = "mean gain over costs"
        record = effect_record(mean_effect(by_prompt[:, None]), "prompt", name, settings.confidence)
        family = str([cell[name] for name in CELL])
        tally.add(record, label, pd.DataFrame({"value": by_prompt}), family, **columns)


def vector_cleaning(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The share of the mean shift's effect that is left when few latents stand for it."""
    tally = Tally()
    for path in of(inputs, "cleaning.parquet"):
        rows, cell = read_table(path), labels(path)
        if rows.empty:
            nothing = undefined(0, "text", "no shift, or no text to clean it on")
            tally.add(nothing, cell, layer=None, features_kept=0)
            continue
        before = rows["kl_before"].to_numpy(float)
        record = ratio_record(
            before - rows["kl"].to_numpy(float), before, rows["text"].tolist(),
            cell["seed"], "text", "effect kept", settings.resamples, settings.confidence,
        )  # fmt: skip
        layer, kept = int(rows["layer"].iloc[0]), int(rows["features_kept"].iloc[0])
        tally.add(record, cell, rows[["text", "kl", "kl_before"]], layer=layer, features_kept=kept)
    return tally
