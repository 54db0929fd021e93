"""Shares of units, and differences of two shares, with interval and test."""

from __future__ import annotations

import numpy as np
from scipy import stats

from lfp.statistics.records.base import ONE_SIDED, Record, undefined


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
        "" if chance is None else f"; exact binomial against {chance:g}, {ONE_SIDED}"
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
