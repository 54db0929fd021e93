"""The rows of two runs' tables side by side, and what moved beyond its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lfp.statistics.records.base import standard_errors
from lfp.tables.pages.columns import keys

#: What became of a row.
DISJOINT, OUTSIDE, NO_INTERVAL, WITHIN = "disjoint", "outside", "no interval", "within"
ESTIMATED_HERE, ESTIMATED_THERE = "estimated here alone", "estimated there alone"
HERE_ALONE, THERE_ALONE = "here alone", "there alone"
EQUAL, NEITHER = "equal", "not estimated"
#: The order in which rows are listed: those that moved beyond an interval first.
MOVES = (
    DISJOINT, OUTSIDE, NO_INTERVAL, WITHIN, ESTIMATED_HERE, ESTIMATED_THERE, HERE_ALONE,
    THERE_ALONE, EQUAL, NEITHER,
)  # fmt: skip
#: Differences by rounding alone: two estimates this near to each other are equal.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12
#: Columns of a row that are compared, and those that hold a verdict, where a table has one.
_NUMBERS = ("estimate", "ci_low", "ci_high")
_VERDICTS = ("answer", "passes")
_COLUMNS = (*_NUMBERS, "n", "verdict")
#: Columns of the rows of two runs.
COLUMNS = (
    "table", "row", "unit", "move",
    *(f"{name}_{side}" for side in ("here", "there") for name in _COLUMNS),
    "difference", "standard_errors",
)  # fmt: skip


@dataclass(frozen=True)
class Moves:
    """Two runs side by side.

    Parameters
    ----------
    rows
        A row for each row of either run: its ``table``, its name (``row``), the ``unit`` that its
        intervals are over, its ``move``, the numbers of both runs (``estimate_here``,
        ``estimate_there`` and so on), their ``difference``, here minus there, and that in combined
        ``standard_errors``.
    left_out
        Tables that cannot be compared, each with the reason.
    """

    rows: pd.DataFrame
    left_out: Mapping[str, str]

    def counts(self) -> pd.DataFrame:
        """The number of rows by table and move; moves of no row are left out."""
        counted = pd.crosstab(self.rows["table"], self.rows["move"])
        counted = counted[[move for move in MOVES if move in counted]]
        counted.insert(0, "rows", counted.sum(axis=1))
        return counted.rename_axis(columns=None).reset_index()


def moves(
    here: Mapping[str, pd.DataFrame],
    there: Mapping[str, pd.DataFrame],
    confidence: tuple[float, float] = (0.95, 0.95),
) -> Moves:
    """The rows of two runs' tables, the largest moves first.

    Parameters
    ----------
    here, there
        Tables by name, with the columns of records.
    confidence
        Coverage of the intervals here and there.
    """
    parts, left_out = [], {}
    for name in dict.fromkeys([*here, *there]):
        if name not in here or name not in there:
            left_out[name] = f"a table {'here' if name in here else 'there'} alone"
            continue
        by = _common_keys(here[name], there[name])
        levels = zip((here[name], there[name]), confidence, strict=True)
        sides = [_named(frame, by, level) for frame, level in levels]
        doubled = max(int(side.index.duplicated().sum()) for side in sides)
        if doubled:
            others = set(keys(here[name])) ^ set(keys(there[name]))
            left_out[name] = f"{doubled} rows have the name of another by {', '.join(by)}" + (
                f"; one run alone names rows by {', '.join(sorted(others))}" if others else ""
            )
            continue
        both = sides[0].add_suffix("_here").join(sides[1].add_suffix("_there"), how="outer")
        both.insert(0, "table", name)
        parts.append(both)
    if not parts:
        return Moves(pd.DataFrame(columns=list(COLUMNS)), left_out)
    rows = pd.concat(parts).reset_index()
    return Moves(_ordered(_judged(rows)), left_out)


def _common_keys(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """The keys that name the rows of both tables; a table without rows has none of its own."""
    if here.empty or there.empty:
        return keys(there if here.empty else here)
    return [key for key in keys(here) if key in keys(there)]


def _named(frame: pd.DataFrame, by: Sequence[str], confidence: float) -> pd.DataFrame:
    """The numbers of a table by the names of its rows, which its columns `by` give.

    Beside them are the standard errors, by intervals of the `confidence`.
    """
    verdict = next((frame[name] for name in _VERDICTS if name in frame), None)
    result = pd.DataFrame(
        {name: frame[name].astype(float) for name in (*_NUMBERS, "n")}
        | {"error": standard_errors(frame, confidence), "unit": frame["unit"]}
        | {"verdict": "" if verdict is None else verdict.map(_text)},
        index=frame.index,
    )
    names = [_name(row) for row in frame.reindex(columns=list(by)).to_dict("records")]
    result.index = pd.Index(names, name="row", dtype=object)
    return result


def _name(row: Mapping[str, Any]) -> str:
    """The name of a row by its keys; those without a value are left out."""
    texts = {key: _text(value) for key, value in row.items()}
    return ", ".join(f"{key}={text}" for key, text in texts.items() if text)


def _text(value: Any) -> str:
    """A value as a part of a name: the same one for a whole number of either type."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of both runs with their move and their difference."""
    here, there = (
        {name: rows[f"{name}_{side}"].to_numpy(dtype=float) for name in _NUMBERS}
        for side in ("here", "there")
    )
    difference = here["estimate"] - there["estimate"]
    errors = [rows[f"error_{side}"].to_numpy(dtype=float) for side in ("here", "there")]
    disjoint = (here["ci_low"] > there["ci_high"]) | (there["ci_low"] > here["ci_high"])
    known = np.isfinite(here["estimate"]), np.isfinite(there["estimate"])
    without = ~(_has_interval(here) | _has_interval(there))
    absent = [rows[f"n_{side}"].isna() for side in ("there", "here")]
    kinds = {
        HERE_ALONE: absent[0],
        THERE_ALONE: absent[1],
        NEITHER: ~known[0] & ~known[1],
        ESTIMATED_HERE: ~known[1],
        ESTIMATED_THERE: ~known[0],
        EQUAL: np.isclose(here["estimate"], there["estimate"], rtol=_RELATIVE, atol=_ABSOLUTE),
        DISJOINT: disjoint,
        OUTSIDE: _outside(here["estimate"], there) | _outside(there["estimate"], here),
        NO_INTERVAL: without,
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = difference / np.hypot(errors[0], errors[1])
    return rows.assign(
        unit=rows["unit_here"].fillna(rows["unit_there"]),
        move=np.select(list(kinds.values()), list(kinds), WITHIN),
        difference=difference,
        standard_errors=np.where(difference == 0, 0.0, standard),
        **{f"verdict_{side}": rows[f"verdict_{side}"].fillna("") for side in ("here", "there")},
    )


def _has_interval(side: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.isfinite(side["ci_low"]) & np.isfinite(side["ci_high"])


def _outside(estimate: np.ndarray, side: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether an estimate lies outside the interval of the other side; False without one."""
    return (estimate < side["ci_low"]) | (estimate > side["ci_high"])


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by their move, the largest first.

    Within a move they go by standard errors, and without these by the share that the difference has
    in the larger number.
    """
    sizes = [np.abs(rows[f"estimate_{side}"].to_numpy(dtype=float)) for side in ("here", "there")]
    larger = np.fmax(sizes[0], sizes[1])
    difference = rows["difference"].abs().fillna(0.0)
    share = np.divide(difference, larger, where=larger > 0, out=np.zeros(len(rows)))
    order = pd.DataFrame(
        {
            "move": rows["move"].map(MOVES.index),
            "errors": -rows["standard_errors"].abs(),
            "share": -share,
        }
    ).sort_values(["move", "errors", "share"], kind="stable", na_position="last")
    return rows.loc[order.index, list(COLUMNS)].reset_index(drop=True)
