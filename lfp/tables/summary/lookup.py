"""One row of a table by the values of its columns, and the verdict on its number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lfp.statistics.records.base import ONE_SIDED, Record
from lfp.statistics.verdicts import Truth


def rows_where(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a table whose labels have the values `where`.

    The table `across_seeds` writes the labels of other tables into its column ``row``, where they
    are looked for if it has no such column.
    """
    parts = ", " + frame["row"] + "," if "row" in frame else pd.Series("", frame.index)
    meant = pd.Series(True, frame.index)
    for name, value in where.items():
        if name in frame:
            meant &= frame[name] == value
        else:
            meant &= parts.str.contains(f", {name}={value},", regex=False)
    return frame[meant]


def plain_value(value: Any) -> Any:
    """A value of a table as JSON has it; None where it is missing."""
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def record_of(row: Mapping[str, Any]) -> Record:
    """The number of a table's row."""
    return Record(
        estimate=float(row["estimate"]), ci_low=plain_value(row["ci_low"]),
        ci_high=plain_value(row["ci_high"]), n=int(row["n"]), unit=row["unit"],
        method=row["method"], seeds=int(row["seeds"]), p=plain_value(row["p"]),
        p_adjusted=plain_value(row["p_adjusted"]),
    )  # fmt: skip


def verdict_on(row: Mapping[str, Any], truth: Truth) -> str:
    """The verdict on a row whose number must lie where `truth` says.

    Rows of planted truth have one. The others are told from the number by their interval, and by
    the adjusted p where a test was made; silence needs the interval within the margin. A one-sided
    test asks whether the estimate is larger, so that below the number the interval alone decides.
    """
    if isinstance(row.get("answer"), str):
        return row["answer"]
    low, high, adjusted = (plain_value(row[name]) for name in ("ci_low", "ci_high", "p_adjusted"))
    if low is None or high is None or low <= truth.value <= high:
        adjusted = 1.0
    elif high < truth.value and ONE_SIDED in row["method"]:
        adjusted = None
    record = Record(
        row["estimate"], low, high, row["n"], row["unit"], row["method"],
        p_adjusted=0.0 if adjusted is None else adjusted,
    )  # fmt: skip
    return truth.verdict(record, record)
