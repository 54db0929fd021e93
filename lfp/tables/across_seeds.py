"""The table of the numbers of other tables over fine-tuning seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lfp.files.artefacts import read_table
from lfp.statistics.estimates import variance_components
from lfp.statistics.multiple import holm
from lfp.statistics.records.base import Record, standard_errors
from lfp.statistics.records.means import mean_record
from lfp.statistics.verdicts import EQUIVALENCE, Truth
from lfp.tables.rows import TableSettings, Tally

#: Labels of a row that name its run; rows that differ in nothing else are averaged.
_RUN = ("seed", "sae")
#: Part of the names of rows of planted truth that hold one seed against another.
OTHER_SEED = " of seed "
#: The contrast of a policy with that of the next seed, which over all seeds comes to 0.
OTHER_POLICY = "policy - other_seed"


def across_seeds(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every number of other tables over fine-tuning seeds.

    Rows have the mean, its t interval, and the sources of the variance.

    Autoencoder seeds (the probed variants of a cell that differ in nothing but their seed) are
    nested in fine-tuning seeds and averaged within them, so that the t interval over the means of
    ``df`` + 1 fine-tuning seeds holds the variance of both. Other variants have rows of their own,
    which name the first variant of their family. ``variance_fine_tuning`` and
    ``variance_autoencoder`` are components of the nested analysis of variance, ``variance_units``
    is the mean squared standard error over words or prompts, from the rows' intervals and methods.
    Rows of planted truth are judged again, by the t test over seeds with Holm's p over a planted
    task; those that hold two seeds against each other are left out, as is the contrast of a policy
    with that of another seed: they share policies.
    """
    tally, rows = Tally(), []
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
            record = _over_seeds(means.to_numpy(), settings.confidence)
            parts = variance_components(group, "seed", "estimate")
            errors = standard_errors(group, settings.confidence) ** 2
            label = dict(zip(names, key, strict=True))
            if OTHER_SEED in str(label.get("of", "")) or label.get("contrast") == OTHER_POLICY:
                continue
            described = ", ".join(
                f"{n}={v}" for n, v in label.items() if n not in ("model", "task")
            )
            row = {"model": label["model"], "task": label["task"], "table": table, "row": described}
            extras = {
                "df": record.n - 1,
                "autoencoders": int(group["autoencoder"].nunique()),
                "variance_fine_tuning": parts["between"],
                "variance_autoencoder": parts["within"],
                "variance_units": float(np.nanmean(errors)) if errors.notna().any() else None,
            }
            values = group[["seed", "autoencoder", "estimate", "ci_low", "ci_high"]]
            truth = None
            if "expected" in group:
                one = group.iloc[0]
                truth = Truth(one["expected"], one["against"], one["margin"])
                record = _tested(record, means.to_numpy(), truth)
            rows.append(_Row(row, record, means.to_numpy(), truth, values, extras))
    for row in _corrected(rows):
        verdict = {}
        if row.truth is not None:
            narrow = _over_seeds(row.means, EQUIVALENCE)
            answer = row.truth.verdict(row.record, narrow)
            verdict = row.truth.columns() | {"answer": answer}
        tally.add(row.record, row.labels, row.values, **row.extras, **verdict)
    return tally


@dataclass(frozen=True)
class _Row:
    """A row of the table, with the ``means`` [seed] behind it and the planted ``truth``, if any."""

    labels: dict[str, Any]
    record: Record
    means: np.ndarray
    truth: Truth | None
    values: pd.DataFrame
    extras: dict[str, Any]


def _corrected(rows: Sequence[_Row]) -> Iterator[_Row]:
    """The rows, those of planted truth with Holm's p.

    A family has the rows of one planted task, apart for those that must be there and those that
    must not, as in a single run (:func:`lfp.tables.planted.recovery.judged`).
    """

    def family(row: _Row) -> tuple[str, str, bool] | None:
        if row.truth is None or row.record.p is None:
            return None
        return row.labels["model"], row.labels["task"], row.truth.side == "at"

    members: dict[tuple[str, str, bool], list[float]] = {}
    for row in rows:
        if (name := family(row)) is not None:
            members.setdefault(name, []).append(row.record.p)
    adjusted = {name: iter(holm(np.array(p))) for name, p in members.items()}
    for row in rows:
        name = family(row)
        if name is not None:
            row = replace(row, record=replace(row.record, p_adjusted=float(next(adjusted[name]))))
        yield row


def _over_seeds(means: np.ndarray, confidence: float) -> Record:
    """The mean over fine-tuning seeds of the values `means` [seed] with its t interval."""
    record = mean_record(means, "fine-tuning seed", confidence)
    method = record.method.replace("t interval", "t interval over fine-tuning seeds")
    return replace(record, method=method, seeds=record.n)


def _tested(record: Record, means: np.ndarray, truth: Truth) -> Record:
    """The `record` with the p of a t test of `means` [seed] against the planted truth."""
    p = float(stats.ttest_1samp(means, truth.value).pvalue)
    if record.ci_low is None or not np.isfinite(p):
        return record
    method = f"{record.method}; t test against {truth.value:g}, two-sided"
    return replace(record, p=p, method=method)


def _families(frame: pd.DataFrame, settings: TableSettings) -> list[str]:
    """The family of the variant of every row; empty where none is known."""
    cells = frame["model"] + "/" + frame["task"] + "/seed" + frame["seed"].astype(str)
    return [
        settings.families.get(cell, {}).get(variant, "")
        for cell, variant in zip(cells, frame["autoencoder"], strict=True)
    ]
