"""Resampled units: their counts, shared by the numbers of a table, and intervals from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from lfp.statistics.records.base import Record, counted, fewest_units, without_interval


def resampled(
    record: Record,
    confidence: float,
    smallest: int | None = None,
    edges: tuple[float, float] | None = None,
) -> Record:
    """A `record` whose interval comes from resampled units, as far as the units carry it.

    Below :func:`fewest_units` it keeps its estimate and loses interval and test, and its ``method``
    says why. An estimate at an edge of its range that no resample leaves, such as an AUROC of 1,
    has an interval of no width whatever the number of units; it gets the exact binomial bound
    (Clopper and Pearson 1934) of as many successes without a failure, on the statistic's scale.

    Parameters
    ----------
    record
        The estimate with the interval and the test of all its units.
    confidence
        Coverage of the interval.
    smallest
        Number of units of the rarer class, where the statistic compares two; else all count.
    edges
        The least and the largest value of the statistic; None where it has none.
    """
    units = record.n if smallest is None else smallest
    least = fewest_units(confidence)
    if units < least:
        rarer = "" if smallest is None or smallest == record.n else " of the rarer label"
        return without_interval(record, f"{counted(units, record.unit)}{rarer}, {least} are needed")
    if edges is None or not _at_edge(record, edges):
        return record
    low, high = edges
    slack = (high - low) * (1 - ((1 - confidence) / 2) ** (1 / units))
    ends = (high - slack, high) if record.estimate > (low + high) / 2 else (low, low + slack)
    method = f"{record.method}; all resamples agree, so the interval is the exact binomial bound"
    return replace(record, ci_low=ends[0], ci_high=ends[1], method=method)


def _at_edge(record: Record, edges: tuple[float, float]) -> bool:
    """Whether estimate and interval are one point, one of the `edges`, but for rounding."""
    values = [record.estimate, record.ci_low, record.ci_high]
    return any(np.allclose(values, edge, rtol=0, atol=1e-9) for edge in edges)


def bootstrap_counts(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """Number of times that each unit is drawn in samples with replacement [sample, unit].

    There are `resamples` samples of the size `n`.
    """
    return rng.multinomial(n, np.full(n, 1 / n), resamples)


@lru_cache(maxsize=4)
def _seeded(seed: int, n: int, resamples: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """:func:`bootstrap_counts` of a seed, read-only, and the state of its generator after them."""
    rng = np.random.default_rng(seed)
    counts = bootstrap_counts(rng, n, resamples).astype(float)
    counts.setflags(write=False)
    return counts, rng.bit_generator.state


def seeded_counts(seed: int, n: int, resamples: int) -> np.ndarray:
    """:func:`bootstrap_counts` of a seed, read-only, as many numbers of a table share them."""
    return _seeded(seed, n, resamples)[0]


def behind_counts(seed: int, n: int, resamples: int) -> np.random.Generator:
    """The generator of a seed after it has drawn :func:`seeded_counts`."""
    rng = np.random.default_rng(seed)
    rng.bit_generator.state = _seeded(seed, n, resamples)[1]
    return rng


def bca_interval(
    estimate: float, replicates: np.ndarray, jackknife: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987)."""
    share = (np.sum(replicates < estimate) + 0.5 * np.sum(replicates == estimate)) / len(replicates)
    if share in (0.0, 1.0) or np.ptp(replicates) == 0:
        return float(np.min(replicates)), float(np.max(replicates))
    bias = stats.norm.ppf(share)
    deviations = jackknife.mean() - jackknife
    spread = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    return tuple(
        np.quantile(replicates, stats.norm.cdf(bias + z / (1 - acceleration * z))).tolist()
    )
