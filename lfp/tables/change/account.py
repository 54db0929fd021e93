"""The tables of what a change of weights is: its doses, and one vector in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.kendall import kendall_record
from lfp.statistics.records.means import mean_record
from lfp.tables.health.shares import UNITS, share_record
from lfp.tables.rows import TableSettings, Tally

#: Columns that name a vector's place and what is claimed of it.
_PLACE = ["site", "layer", "claim", "account", "strength"]


def dose(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Effect, divergence and readout of models with other doses of the change of weights.

    Every quantity has a row per dose, and one of its least-squares slope over doses in [-1, 1], but
    for the divergence, which has none at 0.
    """
    tally = Tally()
    for path in inputs:
        frame, cell = read_table(path), labels(path)
        if frame.empty:
            nothing = {"quantity": "effect", "part": "", "statistic": "value", "dose": 0.0}
            tally.add(undefined(0, "text", "no held-out text"), cell | nothing)
        for (quantity, part), rows in frame.groupby(["quantity", "part"], sort=False):
            values = rows.pivot(index="unit", columns="dose", values="value")
            label = cell | {"quantity": quantity, "part": part}
            if quantity == "choice":
                valence = rows.drop_duplicates("unit").set_index("unit")["valence"]
                _add_rows(tally, label | {"quantity": "tau"}, values, _tau(valence, settings))
                continue
            record = _mean(
                UNITS[rows["effect"].iloc[0]] if quantity == "effect" else "text", settings
            )
            _add_rows(tally, label, values, record)
    return tally


#: The record of values by unit.
_Recorded = Callable[[pd.Series], Record]


def _mean(unit: str, settings: TableSettings) -> _Recorded:
    return lambda values: mean_record(values.to_numpy(), unit, settings.confidence)


def _tau(valence: pd.Series, settings: TableSettings) -> _Recorded:
    """Tau-b of words' values with their valences.

    It has no p, for words that were not taught anything agree as well (the table ``choice``).
    """

    def record(values: pd.Series) -> Record:
        truth = valence[values.index].to_numpy()
        tested = kendall_record(values.to_numpy(), truth, two_sided=True, **settings.resampling)
        method = "; ".join(tested.method.split("; ")[:2])
        return replace(tested, p=None, method=method)

    return record


def _add_rows(tally: Tally, label: dict[str, Any], values: pd.DataFrame, record: _Recorded) -> None:
    """Rows of a quantity from its `values` [unit, dose]: at every dose, and of the slope.

    The effect has its paired difference to the base's as well, and nothing is read of words at 0,
    where the base is held against itself.
    """
    quantity = label["quantity"]

    def add(name: str, statistic: str, at: float, of_units: pd.Series) -> None:
        place = {"quantity": name, "statistic": statistic, "dose": at}
        behind = pd.DataFrame({"instance": of_units.index, "value": of_units.to_numpy()})
        tally.add(record(of_units), label | place, behind)

    for at, of_units in values.items():
        if at or quantity != "tau":
            add(quantity, "value", at, of_units)
        if at and quantity == "effect":
            add("gain", "value", at, of_units - values[0.0])
    near = values[[at for at in values if abs(at) <= 1]]
    if quantity != "kl" and near.shape[1] > 1:
        around = near.columns.to_numpy() - np.mean(near.columns)
        add(quantity, "slope", 0.0, near @ around / (around @ around))


def vector_account(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The share of a policy that is a constant vector, and that random vectors have.

    Rows are those of the mean difference of activations; the random vectors are their null.
    """
    tally = Tally()
    for path in inputs:
        frame, cell = read_table(path), labels(path)
        if frame.empty:
            nothing = {"site": "", "layer": -1, "claim": "", "account": "effect", "strength": 0.0}
            tally.add(undefined(0, "text", "no held-out text"), cell | nothing)
        for place, rows in frame.groupby(_PLACE, sort=False):
            label = cell | dict(zip(_PLACE, place, strict=True))
            effect = rows["effect"].iloc[0]
            unit = UNITS[effect] if label["account"] == "effect" else "text"
            mean, others = (rows[(rows["direction"] == "mean") == side] for side in (True, False))
            gap = mean["gap"].to_numpy()
            record = share_record(mean["value"].to_numpy(), gap, unit, settings)
            drawn = others.groupby(["direction", "draw"])["value"].mean() / gap.mean()
            known = np.isfinite(record.estimate)
            tally.add(
                record, label, mean[["instance", "value", "gap"]], effect=effect, gap=gap.mean(),
                null_low=drawn.min() if known else None, null_high=drawn.max() if known else None,
                null_draws=len(drawn),
            )  # fmt: skip
    return tally
