"""How well a dictionary serves the base and the policy, on the same texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import ratio_record
from lfp.statistics.records.resampling import resampled, seeded_counts
from lfp.tables.rows import TableSettings, Tally

#: Sums over tokens whose ratio is a quantity.
RATIOS = {"fvu": ("error", "variance"), "l0": ("active", "tokens")}
DIFFERENCE = "policy - base"


def dictionary_transfer(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """FVU and L0 of every dictionary on base and policy, and their differences over texts."""
    tally = Tally()
    for path in inputs:
        for keys, group in read_table(path).groupby(["layer", "size"], sort=False):
            label = {**labels(path), **dict(zip(("layer", "size"), keys, strict=True))}
            extras = {name: group[name].iloc[0] for name in ("architecture", "reads", "origin")}
            sides = {
                name: group[group["model_read"] == name].sort_values("text", ignore_index=True)
                for name in ("base", "policy")
            }
            for quantity, (above, below) in RATIOS.items():
                for name, side in sides.items():
                    record = ratio_record(
                        side[above].to_numpy(float), side[below].to_numpy(float), side["text"],
                        settings.seed, "text", quantity, settings.resamples, settings.confidence,
                    )  # fmt: skip
                    values = side[["text", above, below]]
                    tally.add(record, {**label, "quantity": quantity, "on": name}, values, **extras)
                record = ratio_difference(sides["policy"], sides["base"], above, below, settings)
                tally.add(record, {**label, "quantity": quantity, "on": DIFFERENCE}, **extras)
    return tally


def ratio_difference(
    first: pd.DataFrame, second: pd.DataFrame, above: str, below: str, settings: TableSettings
) -> Record:
    """The difference of two ratios of sums over the same texts, which are resampled together.

    Parameters
    ----------
    first, second
        Sums of every text, in one order.
    above, below
        Columns of numerator and denominator.
    settings
        Seed, resamples and confidence of the percentile bootstrap over texts.
    """
    n = len(first)
    if not n or not (first[below].sum() > 0 and second[below].sum() > 0):
        return undefined(n, "text", "no text was read, or all activations are equal")
    draws = np.vstack([np.ones(n), seeded_counts(settings.seed, n, settings.resamples)])
    ratios = [
        draws @ side[above].to_numpy(float) / np.maximum(draws @ side[below].to_numpy(float), 1e-9)
        for side in (first, second)
    ]
    values = ratios[0] - ratios[1]
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    method = "difference of ratios of sums; percentile bootstrap over texts, paired"
    record = Record(float(values[0]), float(low), float(high), n, "text", method)
    return resampled(record, settings.confidence)
