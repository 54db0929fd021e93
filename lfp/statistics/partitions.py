"""Records of statistics over the test parts of repeated partitions.

A cross-validated statistic has no unbiased variance from one partition, for its test parts share
their training data (Bengio and Grandvalet 2004). A bootstrap over fixed out-of-fold predictions
ignores this and is too narrow. Here the units are parted into folds several times, the estimate is
the mean of the statistic over all J test parts, and its variance is that of Nadeau and Bengio
(2003), (1/J + n_test/n_train) s², with s² the variance over the parts.
``benchmarks/calibration.py`` holds intervals and tests to their levels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from lfp.statistics.estimates import UNTRAINED
from lfp.statistics.records.base import ONE_SIDED, Record, undefined, without_interval
from lfp.statistics.records.resampling import resampled

#: The reason of a record that no test part has a value for.
NOWHERE = "no test part carries the statistic, for too few units, one class or equal predictions"


class Refits(NamedTuple):
    """A tested statistic on the parts of the first partitions.

    ``observed`` [part] has it for the true labels, ``permuted`` [draw, part] for probes that are
    refitted on permuted ones.
    """

    observed: np.ndarray
    permuted: np.ndarray

    def minus(self, other: Refits) -> Refits:
        """The difference of two probes, draw by draw, of as many draws as both have.

        It is paired where both were refitted on the same permutations, those of one cell.
        """
        draws = min(len(self.permuted), len(other.permuted))
        permuted = self.permuted[:draws] - other.permuted[:draws]
        return Refits(self.observed - other.observed, permuted)


class PartValues(NamedTuple):
    """A statistic on every test part.

    ``values`` [part] are missing where a part does not carry the statistic, ``ratio`` is the number
    of tested over that of training units, and ``refits`` is None where nothing was refitted.
    """

    values: np.ndarray
    ratio: float
    refits: Refits | None = None

    def minus(self, other: PartValues) -> PartValues:
        """The paired difference of two probes on the same parts.

        It has no values where one of them was not trained.
        """
        if len(self.values) != len(other.values):
            return PartValues(np.zeros(0), float("nan"))
        refits = None
        if self.refits is not None and other.refits is not None:
            alike = len(self.refits.observed) == len(other.refits.observed)
            refits = self.refits.minus(other.refits) if alike else None
        return PartValues(self.values - other.values, self.ratio, refits)


def partitions_record(
    parts: PartValues,
    n: int,
    unit: str,
    name: str,
    edges: tuple[float, float],
    chance: float,
    confidence: float = 0.95,
) -> Record:
    """Mean of a statistic over the test parts of repeated partitions.

    The interval is a t interval with J - 1 degrees of freedom, cut at the `edges` of the statistic;
    it reaches to `chance` where the test does not rule that out. The one-sided p is the share of
    refits on permuted labels whose mean is as high, or that of the t interval against `chance`
    where it is larger: permuted labels are not balanced in every context as true ones are, so that
    their probes vary a little less. A part that does not carry the statistic is left out, and where
    half of the parts are, the record has neither interval nor test.

    Parameters
    ----------
    parts
        The statistic on every part.
    n
        Number of units, all parts of a partition together.
    unit
        Name of a unit, for the record.
    name
        Name of the statistic, for the record.
    edges
        The least and the largest value of the statistic.
    chance
        Its value for a probe that knows nothing.
    confidence
        Coverage of the interval.
    """
    record = _interval(parts, n, unit, name, edges, confidence)
    if record.ci_low is None:
        return record
    if record.ci_low == record.ci_high and record.estimate not in edges:
        return without_interval(record, "all test parts have one value")
    if parts.refits is not None:
        observed, permuted = _means(parts.refits.observed[None])[0], _means(parts.refits.permuted)
        record = _tested(record, observed, permuted, f"or t where its p is larger, {ONE_SIDED}")
        if record.p is not None:
            record = replace(record, p=max(record.p, _p_of_t(parts, chance)))
            record = _reaching(record, observed, permuted, chance, confidence)
    return resampled(record, confidence, edges=edges)


def _reaching(
    record: Record, observed: float, permuted: np.ndarray, chance: float, confidence: float
) -> Record:
    """The `record` with an interval that holds `chance` where the test does not rule it out.

    Parts of one data set agree with each other by chance, too, so that the interval of a probe that
    knows nothing is too narrow. A test of so few `permuted` draws that it never rules anything out
    widens nothing.
    """
    level, draws = (1 - confidence) / 2, permuted[np.isfinite(permuted)]
    if 1 / (len(draws) + 1) > level:
        return record
    below = (1 + np.sum(draws <= observed + 1e-9)) / (len(draws) + 1)
    low = min(record.ci_low, chance) if record.p > level else record.ci_low
    high = max(record.ci_high, chance) if below > level else record.ci_high
    return replace(record, ci_low=low, ci_high=high)


def partitions_difference_record(
    parts: PartValues,
    n: int,
    unit: str,
    name: str,
    edges: tuple[float, float],
    confidence: float = 0.95,
) -> Record:
    """Mean difference of a statistic of two probes over the same test parts.

    The interval is that of :func:`partitions_record`. The two-sided p compares t, the mean over the
    standard deviation of the parts' differences, with that of refits of both probes on the same
    permuted labels, and is that of the interval's own t where it is larger. The plain mean would
    not do: probes of permuted labels know nothing, and two that know nothing differ by less than
    two equally good ones (Chung and Romano 2013). Probes that are equal on every part differ by
    exactly 0, with p = 1.

    Parameters
    ----------
    parts
        The difference on every part (:meth:`PartValues.minus`).
    n
        Number of units, all parts of a partition together.
    unit
        Name of a unit, for the record.
    name
        Name of the statistic, for the record.
    edges
        The least and the largest value of the difference.
    confidence
        Coverage of the interval.
    """
    name = f"paired difference of {name}"
    record = _interval(parts, n, unit, name, edges, confidence)
    if record.ci_low is None:
        return record
    if parts.refits is not None:
        observed, permuted = _t(parts.refits.observed[None])[0], _t(parts.refits.permuted)
        test = "of t, or the interval's own t where its p is larger, two-sided"
        record = _tested(record, abs(observed), np.abs(permuted), test)
        if record.p is not None:
            size = parts._replace(values=np.sign(record.estimate) * parts.values)
            record = replace(record, p=max(record.p, min(1.0, 2 * _p_of_t(size, 0.0))))
    return resampled(record, confidence, edges=edges)


def _interval(
    parts: PartValues,
    n: int,
    unit: str,
    name: str,
    edges: tuple[float, float],
    confidence: float,
) -> Record:
    """The estimate with its t interval and no test."""
    if not len(parts.values):
        return undefined(n, unit, UNTRAINED)
    values = parts.values[np.isfinite(parts.values)]
    if not len(values):
        return undefined(n, unit, NOWHERE)
    estimate = float(values.mean())
    method = f"{name}, mean of {len(values)} test parts; Nadeau-Bengio interval"
    record = Record(estimate, estimate, estimate, n, unit, method)
    if len(values) <= len(parts.values) / 2 or len(values) < 2:
        few = f"{len(values)} of {len(parts.values)} test parts carry the statistic"
        return without_interval(record, few)
    half = _standard_error(values, parts.ratio) * float(
        stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    )
    low, high = max(edges[0], estimate - half), min(edges[1], estimate + half)
    return replace(record, ci_low=low, ci_high=high)


def _standard_error(values: np.ndarray, ratio: float) -> float:
    """Nadeau and Bengio's standard error of the mean of the parts' `values`."""
    return float(np.sqrt((1 / len(values) + ratio) * values.var(ddof=1)))


def _p_of_t(parts: PartValues, chance: float) -> float:
    """One-sided p of the parts' mean against `chance`."""
    values = parts.values[np.isfinite(parts.values)]
    above = values.mean() - chance
    error = max(_standard_error(values, parts.ratio), 1e-12)
    return float(stats.t.sf(above / error, len(values) - 1))


def _tested(record: Record, observed: float, permuted: np.ndarray, test: str) -> Record:
    """The `record` with the share of permuted values that reach the observed one as its p."""
    permuted = permuted[np.isfinite(permuted)]
    if not np.isfinite(observed) or not len(permuted):
        return record
    p = float((1 + np.sum(permuted >= observed - 1e-9)) / (len(permuted) + 1))
    method = f"{record.method}; {len(permuted)} refits on permuted labels, {test}"
    return replace(record, p=p, method=method)


def _means(values: np.ndarray) -> np.ndarray:
    """Mean of the parts [draw] that carry a statistic; missing where none does."""
    carried = np.isfinite(values)
    count = carried.sum(1)
    total = np.where(carried, values, 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _t(values: np.ndarray) -> np.ndarray:
    """Mean over standard deviation [draw] of the parts that carry a statistic.

    It is 0 where all parts have the value 0, and huge where they agree on another.
    """
    mean = _means(values)
    spread = np.sqrt(_means((values - mean[:, None]) ** 2))
    scale = np.where(spread > 0, spread, 1e-12)
    return np.where(mean == 0, 0.0, mean / scale)
