"""Estimates with their uncertainty: every number that a table shows is a :class:`Record` made here.

The unit is the word type (lexicon rewards) or the prompt (preferences), never the row: rows of one word are not
independent (paper_vs_code F1, W4; interpretation study 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Record:
    """One number with its interval: `n` counts `unit`s, `method` names interval and test, `p` may be None."""

    estimate: float
    ci_low: float | None
    ci_high: float | None
    n: int
    unit: str
    method: str
    p: float | None = None

    def row(self, **labels: object) -> dict[str, object]:
        """The record as a table row behind its `labels`."""
        return {**labels, **asdict(self)}


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Tau-b of two aligned sequences; 0 where one of them is constant and the coefficient is undefined."""
    tau = stats.kendalltau(x, y, variant="b").statistic
    return 0.0 if np.isnan(tau) else float(tau)


def _sign_matrix(x: np.ndarray) -> np.ndarray:
    return np.sign(x[:, None] - x[None, :])


def _weighted_tau(
    weights: np.ndarray, concordance: np.ndarray, x_untied: np.ndarray, y_untied: np.ndarray
) -> np.ndarray:
    """Tau-b of samples given as multiplicities `weights` [sample, unit] of the original units.

    Copies of one unit are tied in both sequences, so they add to neither numerator nor denominator.
    """
    numerator = np.einsum("si,si->s", weights @ concordance, weights)
    x_pairs = np.einsum("si,si->s", weights @ x_untied, weights)
    y_pairs = np.einsum("si,si->s", weights @ y_untied, weights)
    scale = np.sqrt(x_pairs * y_pairs)
    return np.divide(numerator, scale, out=np.zeros_like(numerator), where=scale > 0)


def _bca_interval(
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
    return tuple(np.quantile(replicates, stats.norm.cdf(bias + z / (1 - acceleration * z))).tolist())


def kendall_record(
    predicted: np.ndarray,
    truth: np.ndarray,
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    unit: str = "word",
) -> Record:
    """Tau-b of word-aligned values with a BCa bootstrap over words and a one-sided pairings permutation p.

    ValueError if the two sequences differ in length or have fewer than 3 words.
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    if len(predicted) != len(truth) or len(truth) < 3:
        raise ValueError(
            f"tau needs two aligned sequences of at least 3 {unit}s, got {len(predicted)} and {len(truth)}"
        )
    rng = np.random.default_rng(seed)
    n = len(truth)
    sx, sy = _sign_matrix(predicted), _sign_matrix(truth)
    matrices = (sx * sy, sx**2, sy**2)
    estimate = kendall_tau(predicted, truth)
    replicates = _weighted_tau(rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float), *matrices)
    jackknife = _weighted_tau(1.0 - np.eye(n), *matrices)
    low, high = _bca_interval(estimate, replicates, jackknife, confidence)
    null = np.empty(resamples)
    for i in range(resamples):
        order = rng.permutation(n)
        null[i] = np.vdot(sx[np.ix_(order, order)], sy)
    p = (1 + np.sum(null >= np.vdot(sx, sy) - 1e-9)) / (resamples + 1)
    method = f"tau-b; BCa bootstrap over {unit}s; pairings permutation, one-sided, {resamples} draws"
    return Record(estimate, low, high, n, unit, method, float(p))


def sign_only_ceiling(truth: np.ndarray) -> float:
    """Tau-b that a perfect knowledge of the signs alone reaches."""
    return kendall_tau(np.sign(truth), truth)


def published_tau(words: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The statistic of the published code: Kendall's tau of two lists of *word strings*, each sorted by its values.

    It compares the alphabetical order of the i-th words of the two lists and is noise about 0 whatever the
    predictions (train_linear_probe notebook, cells 61-62; paper_vs_code F1). Returns (tau, p).
    """
    words = np.asarray(words)
    ranks = np.argsort(np.argsort(words, kind="stable"), kind="stable")
    by_prediction = ranks[np.argsort(predicted, kind="stable")]
    by_truth = ranks[np.argsort(truth, kind="stable")]
    result = stats.kendalltau(by_prediction, by_truth)
    return float(result.statistic), float(result.pvalue)


def proportion_record(
    successes: int, n: int, unit: str, chance: float | None = None, confidence: float = 0.95
) -> Record:
    """A share with its Wilson interval and, against `chance`, an exact one-sided binomial p."""
    test = stats.binomtest(int(successes), int(n), 0.5 if chance is None else chance, alternative="greater")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    method = "share; Wilson interval" + ("" if chance is None else f"; exact binomial against {chance:g}, one-sided")
    p = None if chance is None else float(test.pvalue)
    return Record(successes / n, float(interval.low), float(interval.high), int(n), unit, method, p)


def group_mean_record(
    values: np.ndarray, groups: Sequence[object], seed: int, unit: str, name: str, resamples: int, confidence: float
) -> Record:
    """Mean of `values` with a percentile bootstrap over `groups`: all values of a group stay together."""
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    n = len(uniques)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    low, high = np.quantile((weights @ sums) / (weights @ counts), [(1 - confidence) / 2, (1 + confidence) / 2])
    method = f"{name}; percentile bootstrap over {unit}s"
    return Record(float(np.mean(values)), float(low), float(high), n, unit, method)


def balanced_accuracy_record(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[object],
    seed: int,
    unit: str,
    resamples: int,
    confidence: float,
) -> Record:
    """Balanced accuracy with a percentile bootstrap over `groups`; p is the share of resamples at or below one half."""
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(uniques)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    right = np.where(labels == 1, scores > 0, scores < 0)
    shares = []
    for label in (0, 1):
        of_label = labels == label
        hits = np.bincount(codes[of_label], weights=right[of_label], minlength=n)
        total = np.bincount(codes[of_label], minlength=n)
        shares.append((weights @ hits) / (weights @ total))
    values = np.mean(shares, axis=0)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    p = (1 + np.sum(values <= 0.5)) / (resamples + 1)
    method = f"balanced accuracy; percentile bootstrap over {unit}s; p: resamples at or below 0.5"
    return Record(balanced_accuracy(labels, scores), float(low), float(high), n, unit, method, float(p))


def balanced_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the shares of positives with a score above 0 and of negatives with a score below 0."""
    shares = [np.mean(scores[labels == 1] > 0), np.mean(scores[labels == 0] < 0)] if len(set(labels)) == 2 else [np.nan]
    return float(np.mean(shares))


def mean_record(values: np.ndarray, unit: str, confidence: float = 0.95) -> Record:
    """Mean of independent values with its t interval."""
    values = np.asarray(values, dtype=float)
    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, len(values) - 1) if len(values) > 1 else None
    mean = float(values.mean())
    bounds = (None, None) if half is None else (mean - float(half), mean + float(half))
    return Record(mean, *bounds, len(values), unit, "mean; t interval")


def paired_record(a: np.ndarray, b: np.ndarray, unit: str, seed: int, resamples: int = 2000) -> Record:
    """Mean of a - b over pairs with its t interval and a two-sided sign-flip permutation p."""
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    record = mean_record(difference, unit)
    rng = np.random.default_rng(seed)
    flips = rng.choice([-1.0, 1.0], (resamples, len(difference)))
    null = np.abs((flips * difference).mean(1))
    p = (1 + np.sum(null >= abs(record.estimate) - 1e-12)) / (resamples + 1)
    method = f"paired mean difference; t interval; sign-flip permutation, two-sided, {resamples} draws"
    return Record(record.estimate, record.ci_low, record.ci_high, record.n, unit, method, float(p))


def range_record(values: np.ndarray, unit: str, name: str, chance: float) -> Record:
    """Mean of draws with the range that holds 95 % of them; p is the share of draws at or below `chance`."""
    low, high = np.quantile(values, [0.025, 0.975])
    p = (1 + np.sum(np.asarray(values) <= chance)) / (len(values) + 1)
    method = f"{name}; mean and 95 % range of draws; p: draws at or below {chance:g}"
    return Record(float(np.mean(values)), float(low), float(high), len(values), unit, method, float(p))


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """False discovery rates (q-values) of `p`."""
    return stats.false_discovery_control(p, method="bh") if len(p) else np.asarray(p, dtype=float)
