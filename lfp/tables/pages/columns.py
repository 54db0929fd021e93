"""The columns of a table that a reader sees first, and those that are said once above it.

A table has its keys in front of ``estimate`` (:meth:`lfp.tables.rows.Tally.frame`), then the other
columns of its records, then columns of its own. The names are those of
:class:`lfp.statistics.records.base.Record` and :mod:`lfp.tables.rows`, which are not loaded here:
a page shows the costs of a run, too, and no statistic may rerun that one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lfp.reporting.escapes import plain

#: Most columns that are shown first.
MOST = 10
#: The number of a row; it stays in the table even where all rows have the same one.
NUMBER = "estimate"
#: Columns that the page adds: the address of a cell, and both ends of an interval.
ADDRESS, INTERVAL = "cell", "interval"
#: Columns of verdicts: on planted truth, by a threshold, and why a row is not to be relied on.
VERDICTS = ("answer", "passes", "health")
#: The parts of a cell's address, and the one of them that not every table has.
CELL, _DICTIONARY = ("model", "task", "seed", "sae"), "sae"
_ENDS = ("ci_low", "ci_high")
_P = ("p_adjusted", "p")
#: Columns of a record that fill places that are left, from the one that a reader needs first.
_LAST = ("n", "unit", "p", "seeds", "method")
#: All columns of a record.
RECORD = frozenset({NUMBER, *_ENDS, *_P, *_LAST})


@dataclass(frozen=True)
class Arranged:
    """A table as a page shows it.

    Parameters
    ----------
    frame
        The rows, with the columns that are shown first in front.
    first
        The number of columns that are shown first.
    same
        The text of every column with one value in all rows; these columns are not in `frame`.
    """

    frame: pd.DataFrame
    first: int
    same: Mapping[str, str]


def shown(value: Any) -> str:
    """A value as people read it.

    It has four significant digits, and a count all of its own; it is empty where there is none, and
    has control characters written out.
    """
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return plain(str(value))


def interval(low: Any, high: Any) -> str:
    """The ends of an interval as people read it; empty where there is none."""
    ends = [shown(low), shown(high)]
    return f"[{', '.join(ends)}]" if all(ends) else ""


def is_interval(text: str) -> bool:
    """Whether a text is one of :func:`interval`."""
    return re.fullmatch(r"\[\S+, \S+\]", text) is not None


def keys(frame: pd.DataFrame) -> list[str]:
    """The columns that name a row: those in front of its number, or none without one."""
    columns = list(frame.columns)
    return columns[: columns.index(NUMBER)] if NUMBER in columns else []


def arranged(frame: pd.DataFrame, decisive: Sequence[str] = ()) -> Arranged:
    """A table with its decisive columns in front.

    Without `decisive` these are the keys of a row, its estimate, interval, p and verdicts, and then
    its other columns, :data:`MOST` at most. Columns of one value in all of several rows are taken
    out, but for the `decisive` ones and the number. Model, task, seed and dictionary stand in one
    column where more than one of them varies.
    """
    same = {
        str(name): shown(frame[name].iloc[0])
        for name in frame.columns
        if len(frame) > 1 and name != NUMBER and name not in decisive
        if _is_same(frame[name])
    }
    varied = frame.drop(columns=[name for name in frame.columns if str(name) in same])
    first = list(decisive)
    if not decisive:
        varied = _with_interval(_with_address(varied, keys(frame)))
        first = _first(varied, [name for name in keys(frame) if name in varied])
    others = [name for name in varied.columns if name not in first]
    return Arranged(varied[[*first, *others]], len(first), same)


def _is_same(column: pd.Series) -> bool:
    """Whether a column has one value; numbers that are only shown alike are several."""
    if pd.api.types.is_float_dtype(column):
        return column.nunique(dropna=False) == 1
    return column.map(shown).nunique() == 1


def _with_address(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`frame` with the address of every row's cell in front, where more than a part varies."""
    parts = [name for name in CELL if name in frame]
    if len(parts) < 2 or not set(CELL) - {_DICTIONARY} <= set(names) or ADDRESS in frame:
        return frame
    texts = {name: frame[name].map(shown) for name in parts}
    if "seed" in texts:
        texts["seed"] = "seed" + texts["seed"]
    first, *rest = texts.values()
    frame = frame.copy()
    frame.insert(0, ADDRESS, first.str.cat(rest, sep="/"))
    return frame


def _with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the ends of every row's interval in one column, where it has both."""
    if not set(_ENDS) <= set(frame.columns) or INTERVAL in frame:
        return frame
    frame = frame.copy()
    ends = zip(*(frame[name] for name in _ENDS), strict=True)
    texts = [interval(low, high) for low, high in ends]
    frame.insert(list(frame.columns).index(_ENDS[0]), INTERVAL, texts)
    return frame


def _first(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The columns of `frame` that are shown first; `names` are its keys."""
    columns = list(frame.columns)
    if NUMBER not in columns:
        return columns[:MOST]
    if ADDRESS in columns:
        names = [ADDRESS, *(name for name in names if name not in CELL)]
    p = [name for name in _P if name in columns][:1]
    numbers = [name for name in (NUMBER, INTERVAL, *p) if name in columns]
    verdicts = [name for name in VERDICTS if name in columns]
    known = {*names, *CELL, *verdicts, *RECORD, INTERVAL}
    others = [name for name in columns if name not in known]
    left = [name for name in _LAST if name in columns and name not in numbers]
    chosen = [*names[: MOST - len(numbers)], *numbers, *verdicts, *others, *left]
    return chosen[:MOST]
