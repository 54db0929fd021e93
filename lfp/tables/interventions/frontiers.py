"""The frontiers of steering: how much reward each vector gives over costs, and its cleaning.

The points of a vector are its strengths. The line through them begins at the untouched model, which
costs nothing and gains nothing. Its area up to a cost, divided by that cost, is the mean gain over
costs: one number for a whole line, in units of reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_table
from lfp.statistics.crossed import Effect, effect_record, mean_effect, ratio_effect, told_from_zero
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import ratio_record
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
        strengths = read_table(Path(path).with_name("strengths.parquet"))
        _add_cell(tally, cell, _lines(rows, strengths), settings)
    return tally


#: What the share of a line's gain is of, and the line whose gain at equal KL is taken off.
_CLEANED, _SHIFT, _MEANS = "mean_shift_cleaned", "mean_shift", "difference_of_means"
#: The tokens of lines without a gate.
_EVERYWHERE = "all"


@dataclass(frozen=True)
class Line:
    """What is added at several strengths.

    Parameters
    ----------
    what, where, matched_to
        Labels of its rows.
    costs, kl, multiples
        Rise of the cross-entropy, mean KL of a completion, and multiple of what is added [point];
        the last is NaN for doses of the fine-tuning.
    gains
        Rewards minus those of the untouched model [point, prompt].
    """

    what: str
    where: str
    matched_to: str
    costs: np.ndarray
    kl: np.ndarray
    multiples: np.ndarray
    gains: np.ndarray

    @property
    def reference(self) -> tuple[str, str]:
        """The line that this one's gain is a share of, by ``what`` and ``where``.

        It is the same vector at all tokens for one behind a gate, the mean shift for what few
        latents make of it, and doses of the fine-tuning for all others.
        """
        if self.where != _EVERYWHERE:
            return self.what, _EVERYWHERE
        return (_SHIFT if self.what == _CLEANED else _DOSE), _EVERYWHERE


def _no_columns() -> dict[str, object]:
    names = (
        "most_cost", "share", "share_low", "share_high", "same_strength_share",
        "same_strength_share_low", "same_strength_share_high", "kl_area", "kl_area_low",
        "kl_area_high", "most_kl", "beyond_kl", "beyond_means", "beyond_means_low",
        "beyond_means_high", "null_mean", "null_low", "null_high", "p_random",
    )  # fmt: skip
    return {"points": 0, "share_of": "", "draws": 0} | dict.fromkeys(names, None)


def _lines(rows: pd.DataFrame, strengths: pd.DataFrame) -> list[Line]:
    """All lines of a cell, with those of random vectors, from completions and strengths."""
    names = ["what", "where", "draw", "cost"]
    multiples = strengths.set_index(names)["multiple"].to_dict()
    before = rows[rows["what"] == "none"].set_index("prompt")["reward"]
    scaled, lines = rows[(rows["action"] == _ADD) | (rows["what"] == _DOSE)], []
    keys = ["what", "where", "matched_to", "draw"]
    for (what, where, matched_to, draw), line in scaled.groupby(keys, sort=False):
        points = line.pivot(index="strength", columns="prompt", values="reward")
        kl = line.groupby("strength")["kl"].mean().to_numpy()
        gains = points.to_numpy(float) - before[points.columns].to_numpy(float)
        of = [multiples.get((what, where, draw, cost), np.nan) for cost in points.index]
        costs = points.index.to_numpy(float)
        lines.append(Line(what, where, matched_to, costs, kl, np.array(of), gains))
    return lines


def _add_cell(
    tally: Tally, cell: Mapping[str, Any], lines: Sequence[Line], settings: TableSettings
) -> None:
    """Add the lines of one cell; random vectors are what the others are held against."""
    drawn, named = (
        [line for line in lines if (line.matched_to == _VECTORS) == of] for of in (True, False)
    )
    if not named:
        nothing = undefined(0, "prompt", "nothing comes to a cost that was asked for")
        tally.add(nothing, cell | {"what": "none", "where": ""}, **_no_columns())
        return
    most = float(max(line.costs.max() for line in lines))
    most_kl = float(min(line.kl.max() for line in named))
    null = np.array([frontier_area(line.costs, line.gains.mean(1), most) for line in drawn])
    null = null[np.isfinite(null)]
    places = {(of.what, of.where): of for of in named}
    by_cost = {place: frontier_area(of.costs, of.gains, most) for place, of in places.items()}
    for place, line in places.items():
        confidence = settings.confidence
        columns = _no_columns() | {"points": len(line.costs), "most_cost": most}
        label = cell | {"what": line.what, "where": line.where}
        by_prompt = by_cost[place]
        if np.isnan(by_prompt).any():
            short = undefined(0, "prompt", f"no strength costs {most:g} nats")
            tally.add(short, label, **columns)
            continue
        columns |= _shares(line, places, most, confidence)
        columns |= {"most_kl": most_kl} | _at_equal_kl(line, places, most_kl, confidence)
        if len(null) and line.what != _DOSE:
            area = frontier_area(line.costs, line.gains.mean(1), most)  # as the null: ties are ties
            larger = int((np.abs(null) >= abs(area)).sum())
            columns |= {
                "draws": len(null), "null_mean": float(null.mean()), "null_low": float(null.min()),
                "null_high": float(null.max()), "p_random": (1 + larger) / (1 + len(null)),
            }  # fmt: skip
        record = _record(mean_effect(by_prompt[:, None]), confidence)
        family = str([cell[name] for name in CELL])
        tally.add(record, label, pd.DataFrame({"value": by_prompt}), family, **columns)


def _record(effect: Effect, confidence: float) -> Record:
    """The record of a mean gain over costs, or of what is made of two of them."""
    return effect_record(effect, "prompt", "mean gain over costs", confidence)


def _with_interval(name: str, effect: Effect, confidence: float) -> dict[str, float | None]:
    """A number under its name, with its interval beside it."""
    record = _record(effect, confidence)
    return {
        name: record.estimate, f"{name}_low": record.ci_low, f"{name}_high": record.ci_high,
    }  # fmt: skip


def _shares(
    line: Line, lines: Mapping[tuple[str, str], Line], most: float, confidence: float
) -> dict[str, object]:
    """The share of its reference's gain that a line has at equal cost, and at equal strength.

    There is none of a reference that is the line itself, that is not there, or whose gain is not
    told from 0. Strengths are compared of the same vector alone: behind a gate and at all tokens.

    Parameters
    ----------
    line
        The line.
    lines
        All lines but those of random vectors, by ``what`` and ``where``.
    most
        The largest cost. Strengths go up to the largest that both lines have.
    confidence
        Coverage of the intervals.
    """
    other = lines.get(line.reference)
    if other is None or other is line:
        return {}
    columns: dict[str, object] = {"share_of": other.what}
    both = float(min(line.multiples.max(), other.multiples.max()))
    for name, axis, end in (("share", "costs", most), ("same_strength_share", "multiples", both)):
        if name != "share" and line.where == _EVERYWHERE:
            continue
        gain, whole = (frontier_area(getattr(of, axis), of.gains, end) for of in (line, other))
        if not np.isnan(whole).any() and told_from_zero(whole[:, None], confidence):
            ratio = ratio_effect(gain[:, None], whole[:, None])
            columns |= _with_interval(name, ratio, confidence)
    return columns


def _at_equal_kl(
    line: Line, lines: Mapping[tuple[str, str], Line], most: float, confidence: float
) -> dict[str, float | None]:
    """The mean gain over KL, and by how much it is above that of the difference of means.

    Parameters
    ----------
    line
        The line.
    lines
        All lines but those of random vectors, by ``what`` and ``where``.
    most
        The largest KL that all of these reach. The difference goes up to the largest that the two
        of it reach.
    confidence
        Coverage of the intervals.
    """
    area = frontier_area(line.kl, line.gains, most)
    columns = _with_interval("kl_area", mean_effect(area[:, None]), confidence)
    means = lines.get((_MEANS, _EVERYWHERE))
    if means is not None and means is not line:
        both = float(min(line.kl.max(), means.kl.max()))
        ours, theirs = (frontier_area(of.kl, of.gains, both) for of in (line, means))
        beyond = mean_effect((ours - theirs)[:, None])
        columns |= {"beyond_kl": both} | _with_interval("beyond_means", beyond, confidence)
    return columns


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
