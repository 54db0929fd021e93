"""Means and ratios of means over units, with interval and test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from lfp.statistics.records.base import Record, counted, fewest_units, undefined, why_undefined
from lfp.statistics.records.resampling import resampled, seeded_counts


@lru_cache(maxsize=256)
def _t_bound(confidence: float, df: int) -> float:
    """The distance of the ends of a t interval from its mean, in standard errors."""
    return float(stats.t.ppf((1 + confidence) / 2, df))


def group_mean_record(
    values: np.ndarray,
    groups: Sequence[object],
    seed: int,
    unit: str,
    name: str,
    resamples: int,
    confidence: float,
) -> Record:
    """Mean of `values` with a percentile bootstrap over `groups`.

    All values of a group stay together in a sample. The record is undefined for no values, and
    where some are missing.

    Parameters
    ----------
    values
        Values [row].
    groups
        The resampled unit that each row belongs to [row].
    seed, resamples
        Seed and number of the bootstrap samples.
    unit
        Name of a group, for the record.
    name
        Name of the mean, for the record.
    confidence
        Coverage of the interval.
    """
    reason = why_undefined(unit, values=np.asarray(values, dtype=float))
    if reason:
        return undefined(len(set(groups)), unit, f"{name}: {reason}")
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    n = len(uniques)
    weights = seeded_counts(seed, n, resamples)
    low, high = np.quantile(
        (weights @ sums) / (weights @ counts), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    method = f"{name}; percentile bootstrap over {unit}s"
    record = Record(float(np.mean(values)), float(low), float(high), n, unit, method)
    return resampled(record, confidence)


def mean_record(values: np.ndarray, unit: str, confidence: float = 0.95) -> Record:
    """Mean of independent values with its t interval.

    The record is undefined for no values, and where some are missing. Equal values have an interval
    of no width, which fewer than :func:`fewest_units` do not carry.
    """
    values = np.asarray(values, dtype=float)
    reason = why_undefined(unit, values=values)
    if reason:
        return undefined(len(values), unit, reason)
    n, mean = len(values), float(values.mean())
    if n == 1:
        method = f"mean; no interval and no test: 1 {unit}, 2 are needed"
        return Record(mean, None, None, n, unit, method)
    least = fewest_units(confidence)
    if n < least and np.ptp(values) == 0:
        few = f"{counted(n, unit)} of one value, {least} are needed"
        return Record(mean, None, None, n, unit, f"mean; no interval and no test: {few}")
    half = float(values.std(ddof=1) / n**0.5) * _t_bound(confidence, n - 1)
    return Record(mean, mean - half, mean + half, n, unit, "mean; t interval")


def paired_record(
    a: np.ndarray,
    b: np.ndarray,
    unit: str,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Record:
    """Mean of a - b over pairs with its t interval and a two-sided sign-flip permutation p.

    Parameters
    ----------
    a, b
        Values [pair]; undefined for no pairs, and where some values are missing.
    unit
        Name of a pair.
    seed, resamples
        Seed and number of the sign flips.
    confidence
        Coverage of the interval.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    record = mean_record(difference, unit, confidence)
    if record.ci_low is None:
        return record
    rng = np.random.default_rng(seed)
    flips = rng.choice([-1.0, 1.0], (resamples, len(difference)))
    null = np.abs((flips * difference).mean(1))
    p = (1 + np.sum(null >= abs(record.estimate) - 1e-12)) / (resamples + 1)
    method = (
        f"paired mean difference; t interval; sign-flip permutation, two-sided, {resamples} draws"
    )
    return Record(
        record.estimate, record.ci_low, record.ci_high, record.n, unit, method, p=float(p)
    )


def range_record(values: np.ndarray, unit: str, name: str, confidence: float = 0.95) -> Record:
    """Mean of the draws of a null with the range that holds the share `confidence` of them."""
    values = np.asarray(values, dtype=float)
    reason = why_undefined(unit, draws=values)
    if reason:
        return undefined(len(values), unit, reason)
    n, least = len(values), fewest_units(confidence)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(values, ends).tolist() if n >= least else (None, None)
    spread = (
        f"mean and {100 * confidence:g} % range of draws"
        if n >= least
        else f"mean of draws; no range: {counted(n, unit)}, {least} are needed"
    )
    return Record(float(values.mean()), low, high, n, unit, f"{name}; {spread}")


def ratio_record(
    numerator: np.ndarray, denominator: np.ndarray, groups: Sequence[object], seed: int, unit: str,
    name: str, resamples: int, confidence: float,
) -> Record:  # fmt: skip
    """Ratio of two means over the same rows with a percentile bootstrap over `groups`.

    Both are resampled together, so the ratio is paired. The record is undefined where the
    denominator is 0 throughout.

    Parameters
    ----------
    numerator, denominator
        Values [row].
    groups
        The resampled unit that each row belongs to [row].
    seed, resamples
        Seed and number of the bootstrap samples.
    unit
        Name of a group, for the record.
    name
        Name of the ratio, for the record.
    confidence
        Coverage of the interval.
    """
    reason = why_undefined(unit, values=np.hstack([numerator, denominator]))
    if reason or not denominator.sum() > 0:
        return undefined(
            len(set(groups)), unit, reason or f"{name}: the denominator is 0 throughout"
        )
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = codes.max() + 1
    weights = seeded_counts(seed, n, resamples)
    above, below = (
        weights @ np.bincount(codes, weights=values, minlength=n)
        for values in (numerator, denominator)
    )
    replicates = np.divide(above, below, out=np.full(resamples, np.nan), where=below > 0)
    low, high = np.nanquantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    estimate = float(numerator.sum() / denominator.sum())
    method = f"{name}; percentile bootstrap over {unit}s"
    record = Record(estimate, float(low), float(high), int(n), unit, method)
    return resampled(record, confidence)


def perplexity_record(
    nats: np.ndarray, tokens: np.ndarray, seed: int, resamples: int = 2000, confidence: float = 0.95
) -> Record:
    """Perplexity per token of texts, with a percentile bootstrap over texts.

    Parameters
    ----------
    nats
        Summed cross-entropy of every text [text].
    tokens
        Number of predicted tokens of every text [text].
    seed, resamples
        Seed and number of the bootstrap samples.
    confidence
        Coverage of the interval.
    """
    n = len(nats)
    if not n or not tokens.sum():
        return undefined(n, "text", "no held-out token")
    weights = seeded_counts(seed, n, resamples)
    low, high = np.quantile(
        (weights @ nats) / (weights @ tokens), [(1 - confidence) / 2, (1 + confidence) / 2]
    )
    estimate = float(np.exp(nats.sum() / tokens.sum()))
    low, high = float(np.exp(low)), float(np.exp(high))
    record = Record(estimate, low, high, n, "text", "perplexity; bootstrap over texts")
    return resampled(record, confidence)
