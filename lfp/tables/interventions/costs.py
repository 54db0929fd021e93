"""The table of interventions: their reward, their cost, and random sets of the same damage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.crossed import (
    detectable,
    effect_record,
    mean_effect,
    ratio_effect,
    told_from_zero,
)
from lfp.statistics.records.base import fewest_units, undefined
from lfp.tables.rows import CELL, TableSettings, Tally

#: Columns that tell interventions from each other.
_KEY = ["what", "action", "strength", "where", "site", "layers"]
#: Names of what is no intervention: the untouched model, and the untouched other one.
_NOTHING, _OTHER = "none", "other model"
#: The action of what is added at a cost, and what random vectors are matched to.
_ADD, _VECTORS = "add", "vectors"
#: Columns of the criteria of sets, and of what is known of a vector at its strength.
_CRITERIA = (
    "faithfulness", "faithfulness_low", "faithfulness_high", "completeness", "completeness_low",
    "completeness_high", "minimality", "self_repair", "self_repair_low", "self_repair_high",
)  # fmt: skip
_RESAMPLED = "_resampled"
_STEERED = ("multiple", "tokens_steered", "r2", "side_effect_mass")


@dataclass(frozen=True)
class Trial:
    """One intervention's rows of completions and of neutral texts.

    ``random`` are those of the random sets that are drawn for it.
    """

    completions: pd.DataFrame
    neutral: pd.DataFrame
    random: pd.DataFrame


def interventions(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The change of the reward under every intervention, and what it costs.

    The estimate is the paired change of the reward, over prompts. Beside it stand the KL from the
    untouched model, the rise of the cross-entropy on neutral text, the reward per nat, the share of
    the way to the other model that the change goes, and the rank of the change among random sets.
    """
    tally = Tally()
    for cell, written, neutral, criteria in _cells(inputs):
        untouched = written[written["what"] == _NOTHING]
        before = neutral[neutral["what"] == _NOTHING]
        tried = written[(written["matched_to"] == "") & ~written["what"].isin((_NOTHING, _OTHER))]
        if tried.empty:
            label = dict.fromkeys(_KEY, "") | {"what": _NOTHING}
            text = "no held-out text to prompt with"
            reason = text if untouched.empty else "nothing comes to a cost that was asked for"
            tally.add(undefined(0, "prompt", reason), cell | label, **_missing())
            continue
        gap = _column(written[written["what"] == _OTHER], "reward") - _column(untouched, "reward")
        for key, rows in tried.groupby(_KEY, sort=False):
            named = dict(zip(_KEY, key, strict=True))
            trial = Trial(rows, _like(neutral, named), _drawn(written, named))
            _add_row(tally, cell | named, trial, (untouched, before, gap), criteria, settings)
    return tally


#: Labels of a cell, rows of completions and of neutral texts, and what is known beside them.
CellRows = tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, pd.DataFrame]


def _cells(inputs: Sequence[str]) -> Iterator[CellRows]:
    """The rows of every model whose latents are set, and of every base that is steered.

    What is known beside them has the criteria of sets, a row per ``what``, and for a steered base
    a row per ``what``, ``where`` and ``strength``.
    """
    for path in (path for path in inputs if Path(path).parent.name == labels(path)["sae"]):
        folder, name = Path(path).with_suffix(""), Path(path).name
        if "subject" in labels(path):
            neutral, sets = read_table(folder / "neutral.parquet"), folder / "sets.parquet"
            criteria = read_table(sets).set_index("what")
            yield labels(path), _keyed(read_table(path)), _keyed(neutral), criteria
        elif name == "completions.parquet":
            neutral, known = (
                read_table(folder.with_name(f"{other}.parquet"))
                for other in ("neutral", "strengths")
            )
            known = _keyed(known[known["draw"] == 0].rename(columns={"cost": "strength"}))
            beside = known.set_index(["what", "where", "strength"])[list(_STEERED)]
            cell = labels(path) | {"subject": "base"}
            yield cell, _keyed(read_table(path)), _keyed(neutral), beside


def _keyed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the strength as text, which is empty where an action has none."""
    strengths = [f"{value:g}" if np.isfinite(value) else "" for value in frame["strength"]]
    return frame.assign(strength=np.array(strengths, dtype=object))


def _like(frame: pd.DataFrame, named: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one intervention, without those of its random sets."""
    same = frame["matched_to"] == ""
    for column, value in named.items():
        same &= frame[column] == value
    return frame[same]


def _drawn(frame: pd.DataFrame, named: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of the random sets of one intervention, or of the random vectors of its cost."""
    if named["action"] == _ADD:
        at_cost = frame[
            (frame["matched_to"] == _VECTORS) & (frame["strength"] == named["strength"])
        ]
        return at_cost.assign(draw=at_cost.groupby(["what", "draw"]).ngroup())
    same = frame["matched_to"] == named["what"]
    for column in ("action", "strength", "where", "site"):
        same &= frame[column] == named[column]
    return frame[same]


def _column(rows: pd.DataFrame, column: str, unit: str = "prompt") -> np.ndarray:
    """A column of an intervention's rows [unit, draw]."""
    return rows.pivot(index=unit, columns="draw", values=column).to_numpy(dtype=float)


def _missing() -> dict[str, object]:
    """The columns of an intervention that nothing is known of."""
    numbers = (
        "reward", "kl", "d_ce", "distinct_2", "reward_per_nat", "gap", "gap_recovery",
        "random_mean", "random_low", "random_high", "p_random", "kl_ratio", *_CRITERIA, *_STEERED,
        "detectable",
    )  # fmt: skip
    return {"n_features": 0, "draws": 0} | dict.fromkeys(numbers, None)


def _add_row(
    tally: Tally,
    label: dict[str, Any],
    trial: Trial,
    untouched: tuple[pd.DataFrame, pd.DataFrame, np.ndarray],
    criteria: pd.DataFrame,
    settings: TableSettings,
) -> None:
    """Add the row of one intervention.

    Parameters
    ----------
    tally, label
        The table, and the labels of the row.
    trial
        The intervention's completions and losses, and those of its random sets.
    untouched
        Completions and losses of the untouched model, and the gap [prompt, 1] to the other one.
    criteria
        What is known beside the rows (:func:`_cells`).
    settings
        Settings of all tables.
    """
    rows, (before, losses, gap) = trial.completions, untouched
    columns = _missing() | {"n_features": int(rows["features"].iloc[0])}
    if not label["layers"]:
        nothing = undefined(0, "feature", "nothing to change: the selector chose no latent")
        tally.add(nothing, label, **columns)
        return
    change = _column(rows, "reward") - _column(before, "reward")
    kl = _column(rows, "kl")
    effect, confidence = mean_effect(change), settings.confidence
    record = effect_record(effect, "prompt", "paired mean difference", confidence)
    rise = _column(trial.neutral, "loss", "text") - _column(losses, "loss", "text")
    columns |= {
        "reward": float(rows["reward"].mean()), "kl": float(kl.mean()),
        "d_ce": float(rise.mean()), "distinct_2": float(rows["distinct_2"].mean()),
        "gap": float(gap.mean()), "detectable": detectable(effect, confidence),
    }  # fmt: skip
    if told_from_zero(kl, confidence):
        columns["reward_per_nat"] = ratio_effect(change, kl).value
    if told_from_zero(gap, confidence) or told_from_zero(-gap, confidence):
        columns["gap_recovery"] = float(change.mean() / gap.mean())
    if len(trial.random) and (trial.random["features"].any() or label["action"] == _ADD):
        columns |= _against_random(trial.random, _column(before, "reward"), change, kl)
    place = label["what"]
    if criteria.index.nlevels > 1:
        place = (place, label["where"], label["strength"])
    if place in criteria.index:
        columns |= _known(criteria.loc[place], confidence)
    values = rows[["prompt", "reward", "kl", "tokens", "distinct_2"]].assign(change=change[:, 0])
    family = str([label[name] for name in (*CELL, "subject")])
    tally.add(record, label, values, family, **columns)


def _known(row: pd.Series, confidence: float) -> dict[str, float]:
    """What is known of a set or a vector beside its rows.

    Criteria that come with resampled values have their percentile interval, where the instances
    carry one.
    """
    columns = {name: float(row[name]) for name in (*_CRITERIA, *_STEERED) if name in row}
    for name in row.index[row.index.str.endswith(_RESAMPLED)]:
        criterion, values = name.removesuffix(_RESAMPLED), np.array(row[name], dtype=float)
        if row["instances"] < fewest_units(confidence) or np.isnan(values).all():
            continue
        low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        columns |= {f"{criterion}_low": float(low), f"{criterion}_high": float(high)}
    return columns


def _against_random(
    random: pd.DataFrame, before: np.ndarray, change: np.ndarray, kl: np.ndarray
) -> dict[str, float]:
    """The place of a change among those of random sets.

    ``p_random`` is the share of sets, this one among them, whose mean change is at least as large
    on either side.
    """
    # All means are taken alike, so that no rounding breaks a tie.
    mean, *means = np.hstack([change, _column(random, "reward") - before]).mean(0)
    drawn = np.array(means)
    larger = int((np.abs(drawn) >= abs(mean)).sum())
    return {
        "draws": len(drawn),
        "random_mean": float(drawn.mean()),
        "random_low": float(drawn.min()),
        "random_high": float(drawn.max()),
        "p_random": (1 + larger) / (1 + len(drawn)),
        "kl_ratio": float(random["kl"].mean() / kl.mean()) if kl.mean() else float("nan"),
    }
