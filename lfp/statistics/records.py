"""Estimates with their uncertainty.

Every number that a table shows is a :class:`Record` made here.

The unit is the word type (lexicon rewards) or the prompt (preferences), never the row: rows of one
word are not independent (paper_vs_code F1, W4; interpretation study 4.1).
``benchmarks/calibration.py`` holds intervals and tests to their nominal levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from lfp.statistics.estimates import UNTRAINED, auroc, balanced_accuracy, kendall_tau


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


def detectable(record: Record, confidence: float) -> float | None:
    """The smallest true difference that a paired comparison finds in four of five repetitions.

    It is that of a two-sided t test at 1 - `confidence` with as many units of the same spread, as
    the t interval of the `record` has it (Cohen 1988). None where it has no interval.
    """
    if record.ci_low is None or record.n < 2:
        return None
    bound, power = stats.t.ppf([(1 + confidence) / 2, 0.8], record.n - 1)
    error = (record.ci_high - record.ci_low) / 2 / bound
    return float(error * (bound + power))


def undefined(n: int, unit: str, reason: str) -> Record:
    """The record of a number that does not exist.

    It is NaN without interval or test, and the `reason` is its ``method``.
    """
    return Record(float("nan"), None, None, n, unit, f"not estimated: {reason}")


def _why_undefined(unit: str, least: int = 1, varied: bool = False, **values: np.ndarray) -> str:
    """The reason why nothing can be said of aligned `values` by name; empty where there is none.

    Reasons are too few values, values that are not finite, or, where `varied`, all equal ones.
    """
    for name, array in values.items():
        if len(array) < least:
            few = f"{_counted(len(array), unit)}, {least} are needed"
            return few if len(array) else f"no {_plural(unit)}"
        if not np.isfinite(array).all():
            return UNTRAINED if name.startswith("predictions") else f"{name} are missing"
        if varied and np.ptp(array) == 0:
            return f"all {name} are equal"
    return ""


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("x") else f"{unit}s"


def _counted(n: int, unit: str) -> str:
    return f"1 {unit}" if n == 1 else f"{n} {_plural(unit)}"


def fewest_units(confidence: float) -> int:
    """The fewest units from which resampling can make an interval of the `confidence`: 6 for 95 %.

    No resample leaves the range of the n values themselves, and that range holds their median with
    the probability 1 - 2^(1 - n).
    """
    return math.ceil(1 - math.log2(1 - confidence) - 1e-9)


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
        return without_interval(
            record, f"{_counted(units, record.unit)}{rarer}, {least} are needed"
        )
    if edges is None or not _at_edge(record, edges):
        return record
    low, high = edges
    slack = (high - low) * (1 - ((1 - confidence) / 2) ** (1 / units))
    ends = (high - slack, high) if record.estimate > (low + high) / 2 else (low, low + slack)
    method = f"{record.method}; all resamples agree, so the interval is the exact binomial bound"
    return replace(record, ci_low=ends[0], ci_high=ends[1], method=method)


def without_interval(record: Record, reason: str) -> Record:
    """The `record` with its estimate alone, and the `reason` in its method."""
    method = f"{record.method.partition(';')[0]}; no interval and no test: {reason}"
    return replace(record, ci_low=None, ci_high=None, p=None, method=method)


def _at_edge(record: Record, edges: tuple[float, float]) -> bool:
    """Whether estimate and interval are one point, one of the `edges`, but for rounding."""
    values = [record.estimate, record.ci_low, record.ci_high]
    return any(np.allclose(values, edge, rtol=0, atol=1e-9) for edge in edges)


def bootstrap_counts(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """Number of times that each unit is drawn in samples with replacement [sample, unit].

    There are `resamples` samples of the size `n`.
    """
    return rng.multinomial(n, np.full(n, 1 / n), resamples)


@lru_cache(maxsize=2)
def _seeded(seed: int, n: int, resamples: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    """:func:`bootstrap_counts` of a seed, read-only, and the state of its generator after them."""
    rng = np.random.default_rng(seed)
    counts = bootstrap_counts(rng, n, resamples).astype(float)
    counts.setflags(write=False)
    return counts, rng.bit_generator.state


def seeded_counts(seed: int, n: int, resamples: int) -> np.ndarray:
    """:func:`bootstrap_counts` of a seed, read-only, as many numbers of a table share them."""
    return _seeded(seed, n, resamples)[0]


def _behind_counts(seed: int, n: int, resamples: int) -> np.random.Generator:
    """The generator of a seed after it has drawn :func:`seeded_counts`."""
    rng = np.random.default_rng(seed)
    rng.bit_generator.state = _seeded(seed, n, resamples)[1]
    return rng


@lru_cache(maxsize=256)
def _t_bound(confidence: float, df: int) -> float:
    """The distance of the ends of a t interval from its mean, in standard errors."""
    return float(stats.t.ppf((1 + confidence) / 2, df))


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


def _permuted_concordance(
    x: np.ndarray, y: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Concordant minus discordant pairs [draw] of `y` with random permutations of `x`."""
    # Ranks of ties are halves, and signs of small integers cost the least memory traffic.
    ranks = (2 * stats.rankdata(x)).astype(np.int16 if len(x) < 2**13 else np.int32)
    shuffled = rng.permuted(np.tile(ranks, (draws, 1)), axis=1)
    signs = _sign_matrix(y)
    total = np.zeros(draws)
    for i in range(len(y) - 1):
        first, rest = shuffled[:, i : i + 1], shuffled[:, i + 1 :]
        order = (first > rest).view(np.int8) - (first < rest).view(np.int8)
        total += order.astype(np.float32) @ signs[i, i + 1 :]
    return total


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
    return tuple(
        np.quantile(replicates, stats.norm.cdf(bias + z / (1 - acceleration * z))).tolist()
    )


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
    reason = _why_undefined(unit, 3, varied=True, predictions=predicted, truths=truth)
    if reason:
        return undefined(len(truth), unit, reason)
    n = len(truth)
    pairs = _pairs(predicted, truth)
    estimate = kendall_tau(predicted, truth)
    replicates = pairs.tau(seeded_counts(seed, n, resamples))
    low, high = _bca_interval(estimate, replicates, pairs.jackknife(), confidence)
    rng = _behind_counts(seed, n, resamples)
    null = _permuted_concordance(predicted, truth, resamples, rng)
    observed, sides = pairs.concordance.sum() / 2, "two-sided" if two_sided else "one-sided"
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
    reason = _why_undefined(unit, 3, varied=True, truths=truth, **both)
    if reason:
        return undefined(len(truth), unit, reason)
    n = len(truth)
    of_a, of_b = _pairs(a, truth), _pairs(b, truth)

    def difference(weights: np.ndarray) -> np.ndarray:
        return of_a.tau(weights) - of_b.tau(weights)

    estimate = kendall_tau(a, truth) - kendall_tau(b, truth)
    replicates = difference(seeded_counts(seed, n, resamples))
    jackknife = of_a.jackknife() - of_b.jackknife()
    low, high = _bca_interval(estimate, replicates, jackknife, confidence)
    rng = _behind_counts(seed, n, resamples)
    null = np.abs(_swapped_tau(a, b, truth, rng.random((resamples, n)) < 0.5))
    p = (1 + np.sum(null >= abs(estimate) - 1e-9)) / (resamples + 1)
    method = (
        f"paired difference of tau-b; BCa bootstrap over {unit}s; swaps within {unit},"
        f" two-sided, {resamples} draws"
    )
    record = Record(estimate, low, high, n, unit, method, p=float(p))
    return resampled(record, confidence, edges=(-2.0, 2.0))


def proportion_record(
    successes: int, n: int, unit: str, chance: float | None = None, confidence: float = 0.95
) -> Record:
    """A share with its Wilson interval.

    Against `chance` it has an exact one-sided binomial p. The record is undefined for no units.

    Parameters
    ----------
    successes, n
        Number of successes, and of units.
    unit
        Name of a unit, for the record.
    chance
        The share under the null; None for no test.
    confidence
        Coverage of the interval.
    """
    if not n:
        return undefined(0, unit, f"no {unit}s")
    test = stats.binomtest(
        int(successes), int(n), 0.5 if chance is None else chance, alternative="greater"
    )
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    method = "share; Wilson interval" + (
        "" if chance is None else f"; exact binomial against {chance:g}, one-sided"
    )
    p = None if chance is None else float(test.pvalue)
    return Record(
        successes / n, float(interval.low), float(interval.high), int(n), unit, method, p=p
    )


def mcnemar_record(a: np.ndarray, b: np.ndarray, unit: str, confidence: float = 0.95) -> Record:
    """Share right under `a` minus share right under `b` on the same units.

    p is McNemar's, exact and two-sided.

    The interval is Bonett and Price's (2012) adjusted Wald interval for paired proportions.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if not len(a):
        return undefined(0, unit, f"no {unit}s")
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    first, second = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(
        (first + second - (first - second) ** 2) / (n + 2)
    )
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    method = "paired difference of shares; Bonett-Price interval; exact McNemar test"
    centre = first - second
    return Record(
        (only_a - only_b) / n,
        float(centre - half),
        float(centre + half),
        n,
        unit,
        method,
        p=float(p),
    )


def two_shares_record(
    k1: int, n1: int, k2: int, n2: int, unit: str, confidence: float = 0.95
) -> Record:
    """Difference of the shares of two independent groups, k1/n1 - k2/n2.

    The interval is Newcombe's (1998) hybrid score interval, p is Fisher's, exact and two-sided. The
    record is undefined where a group is empty.

    Parameters
    ----------
    k1, n1
        Successes and units of the first group.
    k2, n2
        Successes and units of the second group.
    unit
        Name of a unit, for the record.
    confidence
        Coverage of the interval.
    """
    if not (n1 and n2):
        return undefined(n1 + n2, unit, f"a group without {unit}s")
    wilson = [
        stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
        for k, n in ((k1, n1), (k2, n2))
    ]
    first, second = k1 / n1, k2 / n2
    low = first - second - np.hypot(first - wilson[0].low, wilson[1].high - second)
    high = first - second + np.hypot(wilson[0].high - first, second - wilson[1].low)
    p = stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]).pvalue
    method = "difference of two shares; Newcombe interval; Fisher's exact test"
    return Record(first - second, float(low), float(high), n1 + n2, unit, method, p=float(p))


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


def _permuted_auroc(
    labels: np.ndarray, scores: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """AUROC [draw] of the scores in random permutations."""
    ranks = np.tile(stats.rankdata(scores), (draws, 1))
    return _ranked_auroc(labels, rng.permuted(ranks, axis=1))


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
    missing = _why_undefined(unit, predictions=needed)
    if missing or len(set(labels.tolist())) != 2:
        return undefined(len(set(groups)), unit, missing or "all rows have one label")
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(uniques)
    weights, rng = seeded_counts(seed, n, resamples)[:, codes], _behind_counts(seed, n, resamples)
    estimate, replicates = auroc(labels, scores), _resampled_auroc(labels, scores, weights)
    if against is None:
        null = _permuted_auroc(labels, scores, resamples, rng) - 0.5
        observed, name, test = abs(estimate - 0.5), "AUROC", "permuted labels"
    else:
        against = np.asarray(against, dtype=float)
        estimate -= auroc(labels, against)
        replicates = replicates - _resampled_auroc(labels, against, weights)
        swap = (rng.random((resamples, n)) < 0.5)[:, codes]
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
    reason = _why_undefined(unit, values=np.asarray(values, dtype=float))
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
    one label only, or scores are missing; resamples with one label are left out.

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
    missing = _why_undefined(unit, predictions=np.asarray(scores, dtype=float))
    if missing or len(set(np.asarray(labels).tolist())) != 2:
        return undefined(len(set(groups)), unit, missing or "all rows have one label")
    uniques, codes = np.unique(np.asarray(groups), return_inverse=True)
    n = len(uniques)
    weights = seeded_counts(seed, n, resamples)
    right = np.where(labels == 1, scores > 0, scores < 0)
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
    return resampled(record, confidence, _rarer(labels, codes), (0.0, 1.0))


def mean_record(values: np.ndarray, unit: str, confidence: float = 0.95) -> Record:
    """Mean of independent values with its t interval.

    The record is undefined for no values, and where some are missing. Equal values have an interval
    of no width, which fewer than :func:`fewest_units` do not carry.
    """
    values = np.asarray(values, dtype=float)
    reason = _why_undefined(unit, values=values)
    if reason:
        return undefined(len(values), unit, reason)
    n, mean = len(values), float(values.mean())
    if n == 1:
        method = f"mean; no interval and no test: 1 {unit}, 2 are needed"
        return Record(mean, None, None, n, unit, method)
    least = fewest_units(confidence)
    if n < least and np.ptp(values) == 0:
        few = f"{_counted(n, unit)} of one value, {least} are needed"
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


def range_record(values: np.ndarray, unit: str, name: str, observed: float | None = None) -> Record:
    """Mean of the draws of a null with the range that holds 95 % of them.

    p is the one-sided share of draws at or above `observed`, the number that the null is for, where
    there is one.
    """
    values = np.asarray(values, dtype=float)
    reason = _why_undefined(unit, draws=values)
    if reason:
        return undefined(len(values), unit, reason)
    p = (
        None
        if observed is None
        else float((1 + np.sum(values >= observed - 1e-12)) / (len(values) + 1))
    )
    n, least = len(values), fewest_units(0.95)
    low, high = np.quantile(values, [0.025, 0.975]).tolist() if n >= least else (None, None)
    spread = (
        "mean and 95 % range of draws"
        if n >= least
        else f"mean of draws; no range: {_counted(n, unit)}, {least} are needed"
    )
    method = f"{name}; {spread}" + ("" if p is None else "; p: draws at or above the probe's")
    return Record(float(values.mean()), low, high, n, unit, method, p=p)


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
    reason = _why_undefined(unit, values=np.hstack([numerator, denominator]))
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
