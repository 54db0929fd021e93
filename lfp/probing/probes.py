"""Kinds of probes, and the statistics of their predictions (paper section 3.3).

Nothing here fits a probe (:mod:`lfp.probing.fitting` does), so that tables can judge predictions
without loading a library of learning.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lfp.statistics.estimates import UNTRAINED, kendall_taus, right_signs

#: The probe of each kind of feedback: ridge regression of the signed delta for a lexicon reward,
#: logistic regression of the label for preferences.
PROBE_OF = {"reward": "ridge", "preference": "logistic"}
#: The split that a kind of probe is judged by. Both hold out what is judged, words of a lexicon or
#: prompts of a preference, and all that training rows could share with it: the words' contexts, the
#: prompts' answers (:data:`lfp.probing.splits.SPLITS`).
MAIN_SPLIT = {"ridge": "by_word", "logistic": "by_prompt"}
#: A ridge probe of the valence itself: the most that the features hold, with no delta
#: in between.
DIRECT = "ridge on valence"
#: Controls that read the text and no model.
TEXT_FEATURES = ("length", "first_token", "bag_of_words", "tfidf")


def unit_means(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction, truth, tokens and number of rows of every word, sorted by word.

    A word has the most tokens that it has in any of its contexts.
    """
    grouped = predictions.groupby("unit", sort=True)
    return grouped.agg(
        prediction=("prediction", "mean"), truth=("truth", "first"), tokens=("tokens", "max"),
        rows=("truth", "size"),
    ).reset_index()  # fmt: skip


def word_sets(means: pd.DataFrame) -> dict[str, np.ndarray]:
    """Whether each word of :func:`unit_means` is in a set, for the sets that are reported apart.

    They are all words and those of each sign; and of each of these the words that are one token
    and those in pieces, where there are both. A model may know a word that it reads at once
    and not one that it reads in pieces, and a figure of all words shows the commoner kind.
    """
    tokens = means["tokens"].to_numpy()
    sets = _sets(means["truth"].to_numpy(), tokens > 1)
    apart = (tokens > 1).any() and (tokens == 1).any()
    return {name: words for name, words in sets.items() if apart or "_" not in name}


def _sets(truth: np.ndarray, several: np.ndarray) -> dict[str, np.ndarray]:
    """Membership in every set of words by `truth` and by whether a word has `several` tokens."""
    sets = {"all": truth == truth, "positive": truth > 0, "negative": truth < 0}
    kinds = {"": several | True, "_one_token": ~several, "_pieces": several}
    return {
        f"{sign}{kind}".removeprefix("all_"): words & of_kind
        for sign, words in sets.items()
        for kind, of_kind in kinds.items()
    }


def statistic(name: str, words: str) -> str:
    """Name of a statistic (``tau``, ``sign``, ``sign_balanced``) of a set of words."""
    return name if words == "all" else f"{name}_{words}"


def word_statistics(
    rows: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray
) -> dict[str, np.ndarray]:
    """Statistics [draw] of predictions of words, over every set of :func:`word_sets`.

    They are tau-b, the share of words with the right sign (a prediction of 0 counts half), and, of
    sets that have both signs, the mean of the two signs' shares (``sign_balanced``). A statistic is
    missing where a set has too few words for it.

    Parameters
    ----------
    rows
        Descriptions of the rows: ``unit`` and ``tokens``.
    truth, prediction
        [row, draw]; a word's prediction is the mean of its rows.
    """
    _, first, codes = np.unique(rows["unit"].to_numpy(), return_index=True, return_inverse=True)
    of_word = np.equal.outer(np.arange(len(first)), codes)
    mean = of_word @ prediction / of_word.sum(1, keepdims=True)
    truth, several = truth[first], (of_word & (rows["tokens"].to_numpy() > 1)).any(1)[:, None]
    sets, right = _sets(truth, several), right_signs(mean, truth)
    result = {}
    taus = kendall_taus(mean, truth, [*sets.values()])
    for (name, words), tau in zip(sets.items(), taus, strict=True):
        result |= {statistic("tau", name): tau, statistic("sign", name): _share(right, words)}
        if not name.startswith(("positive", "negative")):
            both = [_share(right, words & side) for side in (truth > 0, truth < 0)]
            result[statistic("sign_balanced", name)] = np.mean(both, axis=0)
    return result


def _share(right: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Share [draw] of members that are right; missing where there are none.

    A member may count for a part of one.
    """
    count = member.sum(0)
    return np.divide(
        (right * member).sum(0), count, out=np.full(len(count), np.nan), where=count > 0
    )


def preference_statistics(
    rows: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray
) -> dict[str, np.ndarray]:
    """Balanced accuracy, AUROC and pair accuracy [draw] of scores of answers.

    They are missing where the rows have one label only. A score of 0 says nothing of the label and
    counts half in the first. The last is the share of triples whose
    preferred answer has the higher score; equal scores count half.

    Parameters
    ----------
    rows
        Descriptions of the rows: ``triple`` and ``element``.
    truth, prediction
        [row, draw].
    """
    positive = truth > 0
    right = right_signs(prediction, np.where(positive, 1.0, -1.0))
    both = [_share(right, positive), _share(right, ~positive)]
    ones, zeros = positive.sum(0), (~positive).sum(0)
    wins = (rankdata(prediction, axis=0) * positive).sum(0) - ones * (ones + 1) / 2
    pairs = (ones * zeros).astype(float)
    area = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    place = rows.assign(row=np.arange(len(rows))).pivot(
        index="triple", columns="element", values="row"
    )
    place = place.reindex(columns=["positive", "negative"]).dropna().to_numpy(dtype=int)
    order = truth[place[:, 0]] - truth[place[:, 1]]
    lead = (prediction[place[:, 0]] - prediction[place[:, 1]]) * order
    return {
        "balanced_accuracy": np.mean(both, axis=0),
        "auroc": area,
        "pair_accuracy": _share((1 + np.sign(lead)) / 2, order != 0),
    }


def draw_statistics(
    rows: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray, kind: str
) -> dict[str, np.ndarray]:
    """The statistics [draw] of every column of `truth` and `prediction` [row, draw]."""
    of_kind = word_statistics if kind == "ridge" else preference_statistics
    return of_kind(rows, truth, prediction)


def probe_statistics(predictions: pd.DataFrame, kind: str) -> dict[str, float]:
    """The statistics of one probe's predictions, all rows together; missing ones are left out."""
    truth, prediction = (
        predictions[name].to_numpy(dtype=float)[:, None] for name in ("truth", "prediction")
    )
    statistics = draw_statistics(predictions, truth, prediction, kind)
    return {
        name: float(values[0]) for name, values in statistics.items() if not np.isnan(values[0])
    }


def headline(parts: pd.DataFrame, kind: str) -> str:
    """The main statistic of the probe on the latents, in one line: its mean over test parts.

    Where there are no latents, it is that of the features that were probed first.
    """
    main = parts[
        (parts["split"] == MAIN_SPLIT[kind]) & (parts["probe"] == kind) & (parts["draw"] == 0)
    ]
    features = (
        "latents" if (main["features"] == "latents").any() else next(iter(main["features"]), "")
    )
    main = main[main["features"] == features]
    if main.empty:
        return UNTRAINED
    name = "tau" if kind == "ridge" else "balanced_accuracy"
    return f"{features} features, {name.replace('_', ' ')} {main[name].mean():.3f} held out"
