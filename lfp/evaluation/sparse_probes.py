"""Sparse probes of the feedback: how well a few latents tell a cell's own target (k-sparse probing;
arXiv:2305.01610, arXiv:2503.09532).

The target of a reward of words is a word's polarity, that of preferences whether an answer was the
preferred one. In the training part of a fold the k features are taken whose means differ most
between the two classes, in standard deviations, and a logistic regression reads them. What is
measured is the area under the ROC curve on the test part. Splits are those of the main probes, so
that neither the word nor its context was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lfp.probing.data import ProbeData, preference_rows, stacked, word_rows
from lfp.probing.fitting import logistic_weights
from lfp.probing.probes import MAIN_SPLIT, PROBE_OF
from lfp.probing.splits import SPLITS, fold_indices, why_untrainable
from lfp.settings import Probes
from lfp.statistics.estimates import auroc

#: Inverse penalty of the regression on a few standardised features.
STRENGTH = 1.0
#: Columns of the result.
COLUMNS = ("features", "k", "partition", "fold", "ratio", "auc", "units", "unit", "reason")


def described_rows(
    triples: pd.DataFrame, lexicon: Mapping[str, float], feedback: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Descriptions of the rows of all probes, and their labels [row], 1 or 0.

    `feedback` is ``reward`` or ``preference``; only the former reads the `lexicon`.
    """
    rows = word_rows(triples, lexicon) if feedback == "reward" else preference_rows(triples)
    return rows, (rows["element"] == "positive").to_numpy(dtype=float)


def differences(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far the means of every feature differ between the classes, in standard deviations.

    `features` are [row, feature] and `labels` [row]; a feature that does not vary has 0.
    """
    means = [features[labels == value].mean(0) for value in (1, 0)]
    spread = features.std(0)
    return np.divide(
        np.abs(means[0] - means[1]), spread, out=np.zeros(len(spread)), where=spread > 0
    )


def scores(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, k: int
) -> np.ndarray:
    """Scores of the `test` rows by a probe of `k` features, all chosen on the `train` rows.

    Parameters
    ----------
    features, labels
        [row, feature], and [row] of 1 and 0.
    train, test
        Indices of rows.
    k
        Number of features; all where there are fewer.
    """
    far = differences(features[train], labels[train])
    chosen = np.argsort(-far, kind="stable")[:k]
    x = features[:, chosen].astype(float)
    mean, spread = x[train].mean(0), x[train].std(0)
    x = (x - mean) / np.where(spread > 0, spread, 1.0)
    [weights] = logistic_weights(x[train], labels[train][:, None], [STRENGTH])
    return x[test] @ weights[:-1, 0] + weights[-1, 0]


def unit_auc(rows: pd.DataFrame, labels: np.ndarray, values: np.ndarray) -> float:
    """The AUC of units' mean scores [row]; missing where one class is absent.

    A unit is a word, or an answer to a prompt, of any number of rows.
    """
    means = (
        pd.DataFrame({"unit": rows["unit"].to_numpy(), "label": labels, "score": values})
        .groupby(["unit", "label"])["score"]
        .mean()
    )
    of_unit = means.index.get_level_values("label").to_numpy()
    return auroc(of_unit, means.to_numpy()) if len(set(of_unit)) == 2 else float("nan")


def sparse_probes(
    kinds: Mapping[str, Mapping[str, np.ndarray]],
    triples: pd.DataFrame,
    lexicon: Mapping[str, float],
    feedback: str,
    sizes: Sequence[int],
    settings: Probes,
    seed: int,
) -> pd.DataFrame:
    """The AUC of every test part, for every kind of features and number of these.

    Parameters
    ----------
    kinds
        Features by kind and element, {element: [triple, feature]}.
    triples, lexicon, feedback
        Contrast triples, the valence of words, and ``reward`` or ``preference``.
    sizes
        Numbers of features of a probe.
    settings
        Folds, inner folds (which only say whether a probe can be judged) and partitions.
    seed
        Seed of the first partition.

    Returns
    -------
    DataFrame
        With :data:`COLUMNS`: ``ratio`` is the number of tested over that of training units, those
        that the split cuts into folds, and ``reason`` says why nothing could be trained, in one row
        without an AUC.
    """
    rows, labels = described_rows(triples, lexicon, feedback)
    split = MAIN_SPLIT[PROBE_OF[feedback]]
    data = ProbeData(np.zeros((len(rows), 0)), labels, rows)
    unit = "word" if feedback == "reward" else "prompt"
    common = {"units": rows["unit"].nunique(), "unit": unit}
    reason = why_untrainable(data, "logistic", split, settings, seed)
    if reason:
        nothing = {"partition": 0, "fold": 0, "ratio": np.nan, "auc": np.nan, "reason": reason}
        table = [{"features": kind, "k": k, **nothing, **common} for kind in kinds for k in sizes]
        return pd.DataFrame(table, columns=list(COLUMNS))
    table = []
    values = {kind: stacked(arrays) for kind, arrays in kinds.items()}
    cut = rows[SPLITS[split].cut]
    for partition in range(settings.partitions):
        folds = fold_indices(rows, split, settings.folds, seed + partition)
        for fold, (train, test) in enumerate(folds):
            ratio = cut.iloc[test].nunique() / cut.iloc[train].nunique()
            place = {"partition": partition, "fold": fold, "ratio": ratio}
            for kind, features in values.items():
                for k in sizes:
                    judged = scores(features, labels, train, test, k)
                    auc = unit_auc(rows.iloc[test], labels[test], judged)
                    about = {"features": kind, "k": k, "auc": auc, "reason": ""}
                    table.append({**about, **place, **common})
    return pd.DataFrame(table, columns=list(COLUMNS))
