"""Scores of rows with two labels: AUROC and balanced accuracy, with interval and test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from lfp.statistics.estimates import auroc, balanced_accuracy, right_signs
from lfp.statistics.records.base import Record, undefined, why_undefined, without_interval
from lfp.statistics.records.resampling import behind_counts, resampled, seeded_counts


def _resampled_auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC of samples given as multiplicities `weights` [sample, row].

    It is 0.5 for a sample with one label only.
    """
    positive = np.asarray(labels) == 1
    wins = np.sign(scores[positive][:, None] - scores[~positive][None, :]) / 2 + 0.5
    of_positive, of_negative = weights[:, positive], weights[:, ~positive]
    pairs = of_positive.sum(1) * of_negative.sum(1)
    total = np.einsum("sn,sn->s", of_positive @ wins, of_negative)
    return np.divide(total, pairs, out=np.full(len(weights), 0.5), where=pairs > 0)


def _ranked_auroc(labels: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """AUROC [draw] of `ranks` [draw, row] for the 1s of `labels`."""
    positive, negative = (labels == 1).sum(), (labels != 1).sum()
    offset, pairs = positive * (positive + 1) / 2, positive * negative
    return (ranks[:, labels == 1].sum(1) - offset) / pairs


@lru_cache(maxsize=64)
def _null_auroc(
    score_ties: tuple[int, ...], positive: int, groups: int, seed: int, draws: int
) -> np.ndarray:
    """AUROC [draw] of scores for random labels, `positive` of which are 1, read-only.

    Nothing of the scores counts but how many rows have each of their values, by rising value. So
    the scores of one set of rows share their draws, which follow those of a sample of `groups`.
    """
    rows = sum(score_ties)
    ranks = np.repeat(np.cumsum(score_ties) - (np.array(score_ties) - 1) / 2, score_ties)
    shuffled = behind_counts(seed, groups, draws).permuted(np.tile(ranks, (draws, 1)), axis=1)
    null = _ranked_auroc((np.arange(rows) < positive).astype(int), shuffled)
    null.setflags(write=False)
    return null


def _swapped_auroc(
    labels: np.ndarray, scores: np.ndarray, against: np.ndarray, swap: np.ndarray
) -> np.ndarray:
    """Difference of the AUROC [draw] where the two scores' ranks change sides at `swap`."""
    a, b = stats.rankdata(scores), stats.rankdata(against)
    ours, theirs = (
        _ranked_auroc(labels, stats.rankdata(side, axis=1))
        for side in (np.where(swap, b, a), np.where(swap, a, b))
    )
    return ours - theirs


def auroc_record(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[object],
    seed: int,
    unit: str,
    resamples: int = 2000,
    confidence: float = 0.95,
    against: np.ndarray | None = None,
) -> Record:
    """AUROC with a percentile bootstrap over `groups`.

    p is two-sided, from permutations of the labels over rows. With scores `against` on the same
    rows the record is the paired difference of the two areas, and p comes from exchanging the ranks
    of the two scores within a group. It is undefined where the rows have one label only, or scores
    are missing.

    Parameters
    ----------
    labels
        Labels 0 and 1 [row].
    scores
        Scores of the rows [row].
    groups
        The resampled unit that each row belongs to [row].
    seed, resamples
        Seed, and the number of bootstrap samples and of draws of the test.
    unit
        Name of a group, for the record.
    confidence
        Coverage of the interval.
    against
        Scores to compare with [row]; None for a single area.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    needed = scores if against is None else np.hstack([scores, against])
    missing = why_undefined(unit, predictions=needed)
    if missing or len(set(labels.tolist())) != 2:
        return undefined(len(set(groups)), unit, missing or "all rows have one label")
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(uniques)
    weights = seeded_counts(seed, n, resamples)[:, codes]
    estimate, replicates = auroc(labels, scores), _resampled_auroc(labels, scores, weights)
    if against is None:
        ties = tuple(np.unique(scores, return_counts=True)[1].tolist())
        null = _null_auroc(ties, int((labels == 1).sum()), n, seed, resamples) - 0.5
        observed, name, test = abs(estimate - 0.5), "AUROC", "permuted labels"
    else:
        against = np.asarray(against, dtype=float)
        estimate -= auroc(labels, against)
        replicates = replicates - _resampled_auroc(labels, against, weights)
        swap = (behind_counts(seed, n, resamples).random((resamples, n)) < 0.5)[:, codes]
        null, observed = _swapped_auroc(labels, scores, against, swap), abs(estimate)
        name, test = "paired difference of AUROC", f"swaps within {unit}"
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    p = (1 + np.sum(np.abs(null) >= observed - 1e-12)) / (resamples + 1)
    method = (
        f"{name}; percentile bootstrap over {unit}s; {test}, two-sided, {resamples} permutation"
        f" draws"
    )
    record = Record(estimate, float(low), float(high), n, unit, method, p=float(p))
    if against is None and np.ptp(scores) == 0:
        return without_interval(record, "all scores are equal")
    edges = (0.0, 1.0) if against is None else (-1.0, 1.0)
    return resampled(record, confidence, _rarer(labels, codes), edges)


def _rarer(labels: np.ndarray, codes: np.ndarray) -> int:
    """Number of groups, by their `codes` [row], that have the rarer of the labels 0 and 1 [row]."""
    return min(len(np.unique(codes[np.asarray(labels) == label])) for label in (0, 1))


def balanced_accuracy_record(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[object],
    seed: int,
    unit: str,
    resamples: int,
    confidence: float,
) -> Record:
    """Balanced accuracy with a percentile bootstrap over `groups`.

    p is the share of resamples at or below one half. The record is undefined where the rows have
    one label only, or scores are missing; resamples with one label are left out. Equal scores of
    all rows have neither interval nor test.

    Parameters
    ----------
    labels
        Labels 0 and 1 [row].
    scores
        Scores of the rows, positive for label 1 [row].
    groups
        The resampled unit that each row belongs to [row].
    seed, resamples
        Seed and number of the bootstrap samples.
    unit
        Name of a group, for the record.
    confidence
        Coverage of the interval.
    """
    missing = why_undefined(unit, predictions=np.asarray(scores, dtype=float))
    if missing or len(set(np.asarray(labels).tolist())) != 2:
        return undefined(len(set(groups)), unit, missing or "all rows have one label")
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(uniques)
    weights = seeded_counts(seed, n, resamples)
    right = right_signs(scores, np.where(labels == 1, 1.0, -1.0))
    shares = []
    for label in (0, 1):
        of_label = labels == label
        hits = np.bincount(codes[of_label], weights=right[of_label], minlength=n)
        total = np.bincount(codes[of_label], minlength=n)
        drawn = weights @ total
        shares.append(
            np.divide(weights @ hits, drawn, out=np.full(resamples, np.nan), where=drawn > 0)
        )
    values = np.mean(shares, axis=0)
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    p = (1 + np.sum(values <= 0.5)) / (len(values) + 1)
    method = f"balanced accuracy; percentile bootstrap over {unit}s; p: resamples at or below 0.5"
    estimate = balanced_accuracy(labels, scores)
    record = Record(estimate, float(low), float(high), n, unit, method, p=float(p))
    if np.ptp(scores) == 0:
        return without_interval(record, "all scores are equal")
    return resampled(record, confidence, _rarer(labels, codes), (0.0, 1.0))
