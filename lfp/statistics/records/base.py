"""A number with its uncertainty, and the number of units that it takes.

Every number that a table shows is a :class:`Record`, made by one of the modules beside this one.

The unit is the word type (lexicon rewards) or the prompt (preferences), never the row: rows of one
word are not independent (paper_vs_code F1, W4; interpretation study 4.1).
``benchmarks/calibration.py`` holds intervals and tests to their nominal levels.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from lfp.statistics.estimates import UNTRAINED

#: The name of a t interval in the method of a record, and numbers in methods that say how wide one
#: is: of degrees of freedom, and of the test parts of repeated partitions.
_T_INTERVAL = "t interval"
_FREEDOM = re.compile(r"([\d.]+(?:e[+-]?\d+)?) degrees of freedom")
_PARTS = re.compile(r"mean of (\d+) test parts")
#: In the method of a record: its p asks whether the estimate is larger than under the null, alone.
ONE_SIDED = "one-sided"


@dataclass(frozen=True)
class Record:
    """One number with its interval.

    `n` counts `unit`s, `method` names interval and test, `seeds` counts the fine-tuning seeds
    behind it. `p` is None where no test was made; `p_adjusted` is filled where the record stands
    among others (:func:`holm`).
    """

    estimate: float
    ci_low: float | None
    ci_high: float | None
    n: int
    unit: str
    method: str
    seeds: int = 1
    p: float | None = None
    p_adjusted: float | None = None

    def row(self, **labels: object) -> dict[str, object]:
        """The record as a table row behind its `labels`."""
        return {**labels, **asdict(self)}


def undefined(n: int, unit: str, reason: str) -> Record:
    """The record of a number that does not exist.

    It is NaN without interval or test, and the `reason` is its ``method``.
    """
    return Record(float("nan"), None, None, n, unit, f"not estimated: {reason}")


def why_undefined(unit: str, least: int = 1, varied: bool = False, **values: np.ndarray) -> str:
    """The reason why nothing can be said of aligned `values` by name; empty where there is none.

    Reasons are too few values, values that are not finite, or, where `varied`, all equal ones.
    """
    for name, array in values.items():
        if len(array) < least:
            few = f"{counted(len(array), unit)}, {least} are needed"
            return few if len(array) else f"no {_plural(unit)}"
        if not np.isfinite(array).all():
            return UNTRAINED if name.startswith("predictions") else f"{name} are missing"
        if varied and np.ptp(array) == 0:
            return f"all {name} are equal"
    return ""


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("x") else f"{unit}s"


def counted(n: int, unit: str) -> str:
    return f"1 {unit}" if n == 1 else f"{n} {_plural(unit)}"


def fewest_units(confidence: float) -> int:
    """The fewest units from which resampling can make an interval of the `confidence`: 6 for 95 %.

    No resample leaves the range of the n values themselves, and that range holds their median with
    the probability 1 - 2^(1 - n).
    """
    return math.ceil(1 - math.log2(1 - confidence) - 1e-9)


def without_interval(record: Record, reason: str) -> Record:
    """The `record` with its estimate alone, and the `reason` in its method."""
    method = f"{record.method.partition(';')[0]}; no interval and no test: {reason}"
    return replace(record, ci_low=None, ci_high=None, p=None, method=method)


def standard_errors(records: pd.DataFrame, confidence: float) -> pd.Series:
    """Standard errors of rows of records, from their intervals and the methods of these.

    Half an interval is the quantile of t or, for resampling and for scores, nearly that of the
    normal distribution, times the standard error; an interval that was cut at an edge says too
    little, and one that was stretched to what a test does not rule out too much. They are missing
    where there is no interval.

    Parameters
    ----------
    records
        Rows with the columns of :class:`Record`.
    confidence
        Coverage of their intervals.
    """
    half = (records["ci_high"].astype(float) - records["ci_low"].astype(float)) / 2
    bounds = [
        _bound(str(method), int(n), confidence)
        for method, n in zip(records["method"], records["n"], strict=True)
    ]
    return half / bounds


@lru_cache(maxsize=4096)
def _bound(method: str, n: int, confidence: float) -> float:
    """The distance of an interval's ends from its middle, in standard errors."""
    df, level = 0.0, (1 + confidence) / 2
    if freedom := _FREEDOM.search(method):
        df = float(freedom[1])
    elif parts := _PARTS.search(method):
        df = int(parts[1]) - 1
    elif _T_INTERVAL in method:
        df = n - 1
    return float(stats.t.ppf(level, df) if df > 0 else stats.norm.ppf(level))
