"""The table of the shares of fine-tuning's effect that parts of the weights carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import mean_record, ratio_record
from lfp.tables.rows import TableSettings, Tally

#: The instance that an effect is measured on.
UNITS = {"reward": "prompt", "margin": "pair", "kl": "text"}


def locus(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The effect of fine-tuning, and the Shapley value and share of every part of the weights.

    Quantities: ``gap``, the effect of all parts together; ``value`` of a part, in units of the
    effect; ``share``, value over gap.
    """
    tally = Tally()
    for path in inputs:
        frame = read_table(path)
        if frame.empty:
            nothing = {**labels(path), "game": "components", "component": "all", "layer": -1}
            tally.add(undefined(0, "text", "no held-out text"), {**nothing, "quantity": "gap"})
        for game, rows in frame.groupby("game", sort=False):
            _add_game(tally, {**labels(path), "game": game}, rows, settings)
    return tally


def _add_game(
    tally: Tally, cell: dict[str, object], rows: pd.DataFrame, settings: TableSettings
) -> None:
    """Rows of one game of a cell: the gap, and value and share of every part."""
    effect, gap = rows["effect"].iloc[0], by_instance(rows)
    unit = UNITS[effect]

    def add(record: Record, part: tuple[str, int], quantity: str, of: np.ndarray) -> None:
        label = {**cell, "component": part[0], "layer": part[1], "quantity": quantity}
        values = pd.DataFrame({"instance": np.arange(len(of)), "value": of})
        tally.add(record, label, None if quantity == "share" else values, effect=effect)

    add(mean_record(gap, unit, settings.confidence), ("all", -1), "gap", gap)
    for part, group in rows.groupby(["component", "layer"], sort=False):
        value = by_instance(group)
        add(mean_record(value, unit, settings.confidence), part, "value", value)
        add(share_record(value, gap, unit, settings), part, "share", value)


def by_instance(rows: pd.DataFrame) -> np.ndarray:
    """The sum over parts of their Shapley values on every instance [instance].

    `rows` are those of a ``locus.parquet``, of one game.
    """
    return rows.groupby("instance")["value"].sum().to_numpy()


def share_record(part: np.ndarray, gap: np.ndarray, unit: str, settings: TableSettings) -> Record:
    """The share of the mean `gap` that is the mean of a `part` of it, both [instance].

    Both are resampled together. There is no share of a gap whose interval holds 0: the effect of
    fine-tuning cannot be told from none.
    """
    whole = mean_record(gap, unit, settings.confidence)
    if whole.ci_low is None or whole.ci_low <= 0 <= whole.ci_high:
        return undefined(len(gap), unit, "the effect of fine-tuning is not told from 0")
    sign = np.sign(whole.estimate)
    return ratio_record(
        sign * part, sign * gap, range(len(gap)), unit=unit, name="share of the gap",
        **settings.resampling,
    )  # fmt: skip
