"""Point estimates: numbers without intervals.

The unit is the word type (lexicon rewards) or the prompt (preferences), never the row
(paper_vs_code F1, W4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

#: The reason of a record whose predictions are missing.
UNTRAINED = (
    "no probe could be trained, for too few units for its folds or for one class; the metrics.json"
    " of the cell's probes says why"
)


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Tau-b of two aligned sequences.

    It is 0 where the coefficient is undefined: of fewer than two values, or where one of the
    sequences is constant.
    """
    if len(x) < 2:
        return 0.0
    tau = stats.kendalltau(x, y, variant="b").statistic
    return 0.0 if np.isnan(tau) else float(tau)


def kendall_taus(x: np.ndarray, y: np.ndarray, members: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tau-b [draw] of `x` and `y` [unit, draw] over every one of several sets of units.

    `members` [unit, draw] tell which units a set has. A coefficient is missing for fewer than 3
    units, and where `x` or `y` is constant.
    """
    first, second = np.triu_indices(len(x), 1)
    # Pairs times draws, so that some millions of them are in memory at a time.
    step = max(1, 4 * 10**6 // max(len(first), 1))
    blocks = []
    for start in range(0, x.shape[1], step):
        draws = slice(start, start + step)
        signs_x, signs_y = (_signs(v[first, draws], v[second, draws]) for v in (x, y))
        taus = []
        for member in members:
            both = member[first, draws] & member[second, draws]
            concordance = _total(signs_x * signs_y * both)
            of_x, of_y = (_total((signs != 0) & both) for signs in (signs_x, signs_y))
            scale = np.sqrt(of_x * of_y)
            known = (scale > 0) & (member[:, draws].sum(0) >= 3)
            taus.append(np.divide(concordance, scale, out=np.full(len(scale), np.nan), where=known))
        blocks.append(taus)
    return [np.concatenate(taus) for taus in zip(*blocks, strict=True)]


def _signs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sign of `first` minus `second`, in as little memory as there is."""
    return (first > second).astype(np.int8) - (first < second)


def _total(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis."""
    return values.sum(0, dtype=np.int32).astype(float)


def sign_only_ceiling(truth: np.ndarray) -> float:
    """Tau-b that a perfect knowledge of the signs alone reaches."""
    return kendall_tau(np.sign(truth), truth)


def string_tau(
    words: Sequence[str], predicted: np.ndarray, truth: np.ndarray
) -> tuple[float, float]:
    """The statistic of the published code: Kendall's tau of two lists of *word strings*.

    Each list is sorted by its values. The statistic compares the alphabetical order of the i-th
    words of the two lists and is noise about 0 whatever the predictions (train_linear_probe
    notebook, cells 61-62; paper_vs_code F1). Returns (tau, p).
    """
    words = np.asarray(words)
    ranks = np.argsort(np.argsort(words, kind="stable"), kind="stable")
    by_prediction = ranks[np.argsort(predicted, kind="stable")]
    by_truth = ranks[np.argsort(truth, kind="stable")]
    result = stats.kendalltau(by_prediction, by_truth)
    return float(result.statistic), float(result.pvalue)


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of `scores` for the 1s of `labels`; ties count half."""
    labels = np.asarray(labels) == 1
    ranks = stats.rankdata(scores)
    positives = labels.sum()
    return float(
        (ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * (~labels).sum())
    )


def balanced_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean of the shares of positives scored above 0 and of negatives scored below 0.

    A score of 0 says nothing and counts half (:func:`right_signs`).
    """
    if len(set(labels)) != 2:
        return float("nan")
    right = right_signs(scores, np.where(labels == 1, 1.0, -1.0))
    return float(np.mean([right[labels == label].mean() for label in (0, 1)]))


def right_signs(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where a score has the sign of the truth, which is not 0; 0 where it has the other.

    A score of 0 counts half, and one that is missing is missing.
    """
    return (1 + np.sign(scores) * np.sign(truth)) / 2


def variance_components(values: pd.DataFrame, outer: str, value: str) -> dict[str, float | None]:
    """Variance between and within the levels of `outer`.

    The method is the nested analysis of variance (method of moments).

    `values` has a row per nested unit (an autoencoder seed) of each level (a fine-tuning seed).
    Returns ``between`` (never below 0) and ``within``; None where the design has no replicate to
    estimate it from.
    """
    groups = [group.to_numpy(dtype=float) for _, group in values.groupby(outer)[value]]
    sizes = np.array([len(group) for group in groups])
    total, k = sizes.sum(), len(groups)
    within = (
        sum(((group - group.mean()) ** 2).sum() for group in groups) / (total - k)
        if total > k
        else None
    )
    if k < 2:
        return {"between": None, "within": within}
    grand = np.concatenate(groups).mean()
    between_square = sum(
        n * (group.mean() - grand) ** 2 for n, group in zip(sizes, groups, strict=True)
    ) / (k - 1)
    scale = (total - (sizes**2).sum() / total) / (k - 1)
    return {
        "between": max(0.0, float((between_square - (within or 0.0)) / scale)),
        "within": within,
    }
