"""Kendall's tau-b of aligned values, and the difference of two, with interval and test."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from lfp.statistics.estimates import kendall_tau
from lfp.statistics.records.base import ONE_SIDED, Record, undefined, why_undefined
from lfp.statistics.records.resampling import (
    bca_interval,
    behind_counts,
    resampled,
    seeded_counts,
)


def _sign_matrix(x: np.ndarray) -> np.ndarray:
    """Signs of all differences [unit, unit].

    Single precision holds sums of such integers exactly for thousands of words.
    """
    return np.sign(x[:, None] - x[None, :]).astype(np.float32)


def _untied(weights: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Twice the pairs of different `codes` [unit] in samples of multiplicities `weights` [sample].

    All pairs less those within a code; copies of one unit are pairs within its code.
    """
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    of_code = np.add.reduceat(weights[:, order], starts, axis=1)
    return weights.sum(1) ** 2 - (of_code**2).sum(1)


class _Pairs(NamedTuple):
    """Concordance of all pairs of units [unit, unit], and codes of equal values of x and of y."""

    concordance: np.ndarray
    x_codes: np.ndarray
    y_codes: np.ndarray

    @property
    def x_ties(self) -> tuple[int, ...]:
        """How many units have each value of x, by rising value."""
        return tuple(np.bincount(self.x_codes).tolist())

    @property
    def y_ties(self) -> tuple[int, ...]:
        """How many units have each value of y, by rising value."""
        return tuple(np.bincount(self.y_codes).tolist())

    def tau(self, weights: np.ndarray) -> np.ndarray:
        """Tau-b of samples given as multiplicities `weights` [sample, unit].

        Copies of one unit are tied in both sequences, so they add to neither numerator nor
        denominator.
        """
        single = weights.astype(np.float32)
        numerator = np.einsum("si,si->s", single @ self.concordance, single).astype(np.float64)
        x_pairs, y_pairs = (_untied(weights, codes) for codes in self[1:])
        return _scaled(numerator, x_pairs, y_pairs)

    def jackknife(self) -> np.ndarray:
        """Tau-b without each of the units [unit]."""
        numerator = self.concordance.sum() - 2 * self.concordance.sum(1).astype(np.float64)
        pairs = []
        for codes in self[1:]:
            others = len(codes) - np.bincount(codes)[codes]  # a unit's pairs of different values
            pairs.append((others.sum() - 2 * others).astype(np.float64))
        x_pairs, y_pairs = pairs
        return _scaled(numerator, x_pairs, y_pairs)


def _scaled(numerator: np.ndarray, x_pairs: np.ndarray, y_pairs: np.ndarray) -> np.ndarray:
    """Tau-b from concordant minus discordant pairs and those untied in x and in y, all doubled."""
    scale = np.sqrt(x_pairs * y_pairs)
    return np.divide(numerator, scale, out=np.zeros_like(numerator), where=scale > 0)


def _pairs(x: np.ndarray, y: np.ndarray) -> _Pairs:
    """The pairs of units of two aligned sequences."""
    x_codes, y_codes = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    return _Pairs(_sign_matrix(x) * _sign_matrix(y), x_codes, y_codes)


@lru_cache(maxsize=64)
def _null_concordance(
    x_ties: tuple[int, ...], y_ties: tuple[int, ...], seed: int, draws: int
) -> np.ndarray:
    """Concordant minus discordant pairs [draw] of two sequences in random pairings, read-only.

    Nothing of the sequences counts but how many units have each of their values, by rising value.
    So the rankings of one set of words share their draws.
    """
    n = sum(x_ties)
    # Small integers cost the least memory traffic.
    codes = np.repeat(np.arange(len(x_ties)), x_ties).astype(np.int16 if n < 2**15 else np.int32)
    shuffled = behind_counts(seed, n, draws).permuted(np.tile(codes, (draws, 1)), axis=1)
    rising = np.ascontiguousarray(shuffled.T)  # [unit, draw], by rising y
    above = np.repeat(np.cumsum(y_ties), y_ties)  # where y is larger than a unit's
    total = np.zeros(draws, dtype=np.int64)
    for unit, first in zip(rising, above, strict=True):
        signs = np.clip(rising[first:] - unit, -1, 1)
        total += np.add.reduce(signs, axis=0, dtype=signs.dtype)
    null = total.astype(float)
    null.setflags(write=False)
    return null


def kendall_record(
    predicted: np.ndarray,
    truth: np.ndarray,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    unit: str = "word",
    two_sided: bool = False,
) -> Record:
    """Tau-b of word-aligned values with its interval and its test.

    The interval is a BCa bootstrap over words; p is from permutations of the pairing, one-sided as
    in Table 4 of the paper or `two_sided`. The record is undefined for fewer than 3 words, for
    missing predictions, and where all values of a side are equal.

    Parameters
    ----------
    predicted, truth
        Values [word].
    seed, resamples
        Seed, and the number of bootstrap samples and of draws of the test.
    confidence
        Coverage of the interval.
    unit
        Name of a unit, for the record.
    two_sided
        Whether agreement in the wrong order is as extreme as in the right one.

    Raises
    ------
    ValueError
        If the two sequences differ in length.
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    if len(predicted) != len(truth):
        raise ValueError(
            f"tau needs two aligned sequences, got {len(predicted)} and {len(truth)} {unit}s"
        )
    reason = why_undefined(unit, 3, varied=True, predictions=predicted, truths=truth)
    if reason:
        return undefined(len(truth), unit, reason)
    n = len(truth)
    pairs = _pairs(predicted, truth)
    estimate = kendall_tau(predicted, truth)
    replicates = pairs.tau(seeded_counts(seed, n, resamples))
    low, high = bca_interval(estimate, replicates, pairs.jackknife(), confidence)
    null = _null_concordance(pairs.x_ties, pairs.y_ties, seed, resamples)
    observed, sides = pairs.concordance.sum() / 2, "two-sided" if two_sided else ONE_SIDED
    if two_sided:
        null, observed = np.abs(null), abs(observed)
    p = (1 + np.sum(null >= observed - 1e-9)) / (resamples + 1)
    method = f"tau-b; BCa bootstrap over {unit}s; pairings permutation, {sides}, {resamples} draws"
    record = Record(estimate, low, high, n, unit, method, p=float(p))
    return resampled(record, confidence, edges=(-1.0, 1.0))


def _swapped_tau(a: np.ndarray, b: np.ndarray, truth: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """Difference of tau-b [draw] after `a` and `b` change sides at `swap` [draw, word].

    The two predictions change their ranks. Each swap selects, word by word, one of the 2n ranked
    predictions for `a`; the rest are those of `b`.
    """
    both = _pairs(np.concatenate([stats.rankdata(a), stats.rankdata(b)]), np.tile(truth, 2))
    ours, theirs = np.hstack([~swap, swap]).astype(float), np.hstack([swap, ~swap]).astype(float)
    return both.tau(ours) - both.tau(theirs)


def kendall_difference_record(
    a: np.ndarray,
    b: np.ndarray,
    truth: np.ndarray,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    unit: str = "word",
) -> Record:
    """Difference of tau-b(a, truth) and tau-b(b, truth) on the same words.

    The interval is a paired BCa bootstrap, the test is two-sided. It exchanges the ranks that the
    two predictions give a word, each word by itself, so that only order matters, whatever the
    scales of `a` and `b`. Equal predictions give exactly 0 with p = 1. The record is undefined
    where one of the two coefficients is.

    Parameters
    ----------
    a, b
        The two predictions [word].
    truth
        The true values [word].
    seed, resamples
        Seed, and the number of bootstrap samples and of draws of the test.
    confidence
        Coverage of the interval.
    unit
        Name of a unit, for the record.

    Raises
    ------
    ValueError
        If the sequences differ in length.
    """
    a, b, truth = (np.asarray(values, dtype=float) for values in (a, b, truth))
    if not len(a) == len(b) == len(truth):
        raise ValueError(
            f"a difference needs three aligned sequences, got {len(a)}, {len(b)} and {len(truth)}"
            f" {unit}s"
        )
    both = {"predictions of the first": a, "predictions of the second": b}
    reason = why_undefined(unit, 3, varied=True, truths=truth, **both)
    if reason:
        return undefined(len(truth), unit, reason)
    n = len(truth)
    of_a, of_b = _pairs(a, truth), _pairs(b, truth)

    def difference(weights: np.ndarray) -> np.ndarray:
        return of_a.tau(weights) - of_b.tau(weights)

    estimate = kendall_tau(a, truth) - kendall_tau(b, truth)
    replicates = difference(seeded_counts(seed, n, resamples))
    jackknife = of_a.jackknife() - of_b.jackknife()
    low, high = bca_interval(estimate, replicates, jackknife, confidence)
    rng = behind_counts(seed, n, resamples)
    null = np.abs(_swapped_tau(a, b, truth, rng.random((resamples, n)) < 0.5))
    p = (1 + np.sum(null >= abs(estimate) - 1e-9)) / (resamples + 1)
    method = (
        f"paired difference of tau-b; BCa bootstrap over {unit}s; swaps within {unit},"
        f" two-sided, {resamples} draws"
    )
    record = Record(estimate, low, high, n, unit, method, p=float(p))
    return resampled(record, confidence, edges=(-2.0, 2.0))
