"""The table of the numbers of other tables over fine-tuning seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from lfp.files.artefacts import read_table
from lfp.statistics.estimates import variance_components
from lfp.statistics.records import mean_record
from lfp.tables.rows import TableSettings, Tally

#: Labels of a row that name its run; rows that differ in nothing else are averaged.
_RUN = ("seed", "sae")


def across_seeds(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every number of other tables over fine-tuning seeds.

    Rows have the mean, its t interval, and the sources of the variance.

    Autoencoder seeds (the probed variants of a cell that differ in nothing but their seed) are
    nested in fine-tuning seeds and averaged within them. Other variants have rows of their own,
    which name the first variant of their family. ``variance_fine_tuning`` and
    ``variance_autoencoder`` are components of the nested analysis of variance, ``variance_units``
    is the mean squared standard error over words or prompts, from the rows' intervals.
    """
    tally = Tally()
    normal = stats.norm.ppf((1 + settings.confidence) / 2)
    for path in inputs:
        frame = read_table(path).dropna(subset="estimate")
        if frame.empty:
            continue
        table = str(path).rsplit("/", 1)[-1].removesuffix(".parquet")
        labels = frame.columns[: frame.columns.get_loc("estimate")]  # as Tally.frame orders them
        names = [name for name in labels if name not in _RUN]
        frame["autoencoder"] = frame.get("sae", "none")
        frame["family"] = _families(frame, settings)
        if frame["family"].nunique() > 1:
            names.append("family")
        for key, group in frame.groupby(names, dropna=False, sort=False):
            means = group.groupby("seed")["estimate"].mean()
            if len(means) < 2:
                continue
            record = mean_record(means.to_numpy(), "fine-tuning seed", settings.confidence)
            method = record.method.replace("t interval", "t interval over fine-tuning seeds")
            record = replace(record, method=method, seeds=record.n)
            parts = variance_components(group, "seed", "estimate")
            errors = ((group["ci_high"] - group["ci_low"]).astype(float) / (2 * normal)) ** 2
            label = dict(zip(names, key, strict=True))
            described = ", ".join(
                f"{n}={v}" for n, v in label.items() if n not in ("model", "task")
            )
            row = {"model": label["model"], "task": label["task"], "table": table, "row": described}
            tally.add(
                record,
                row,
                group[["seed", "autoencoder", "estimate", "ci_low", "ci_high"]],
                autoencoders=int(group["autoencoder"].nunique()),
                variance_fine_tuning=parts["between"],
                variance_autoencoder=parts["within"],
                variance_units=float(np.nanmean(errors)) if errors.notna().any() else None,
            )
    return tally


def _families(frame: pd.DataFrame, settings: TableSettings) -> list[str]:
    """The family of the variant of every row; empty where none is known."""
    cells = frame["model"] + "/" + frame["task"] + "/seed" + frame["seed"].astype(str)
    return [
        settings.families.get(cell, {}).get(variant, "")
        for cell, variant in zip(cells, frame["autoencoder"], strict=True)
    ]
