"""Kinds of probes, and the statistics of their predictions (paper section 3.3).

Nothing here fits a probe (:mod:`lfp.probing.fitting` does), so that tables can judge predictions
without loading a library of learning.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lfp.statistics.estimates import (
    UNTRAINED,
    auroc,
    balanced_accuracy,
    kendall_tau,
    sign_only_ceiling,
    string_tau,
)

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
    truth, several = means["truth"].to_numpy(), means["tokens"].to_numpy() > 1
    sets = {"all": truth == truth, "positive": truth > 0, "negative": truth < 0}
    if several.any() and not several.all():
        for name, words in tuple(sets.items()):
            sign = "" if name == "all" else f"{name}_"
            sets |= {f"{sign}one_token": words & ~several, f"{sign}pieces": words & several}
    return sets


def statistic(name: str, words: str) -> str:
    """Name of a statistic (``tau`` or ``sign``) of a set of :func:`word_sets`."""
    return name if words == "all" else f"{name}_{words}"


def word_statistics(means: pd.DataFrame) -> dict[str, float]:
    """Statistics of the predictions for words.

    They are tau-b and the share of words whose sign is predicted, of every set of
    :func:`word_sets` that has a word, and the statistic of the paper's code
    (:func:`lfp.statistics.estimates.string_tau`).
    """
    prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
    strings, string_p = string_tau(means["unit"], prediction, truth)
    right = np.sign(prediction) == np.sign(truth)
    sets = {name: words for name, words in word_sets(means).items() if words.any()}
    return {
        "string_tau": strings,
        "string_tau_p": string_p,
        "sign_only_ceiling": sign_only_ceiling(truth),
        **{statistic("tau", n): kendall_tau(prediction[w], truth[w]) for n, w in sets.items()},
        **{statistic("sign", n): float(right[w].mean()) for n, w in sets.items()},
    }


def preference_statistics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Balanced accuracy and AUROC of scores for labels 0 and 1."""
    return {"balanced_accuracy": balanced_accuracy(labels, scores), "auroc": auroc(labels, scores)}


def probe_statistics(predictions: pd.DataFrame, kind: str) -> dict[str, float]:
    """The statistics of one probe's predictions.

    They are those of :func:`word_statistics`, or balanced accuracy and AUROC.
    """
    if kind == "ridge":
        return word_statistics(unit_means(predictions))
    return preference_statistics(
        predictions["truth"].to_numpy(), predictions["prediction"].to_numpy()
    )


def draw_statistics(
    rows: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray, kind: str
) -> list[dict[str, float]]:
    """:func:`probe_statistics` of every column of `truth` and `prediction` [row, draw]."""
    if kind == "ridge":
        units, first, codes = np.unique(
            rows["unit"].to_numpy(), return_index=True, return_inverse=True
        )
        counts, tokens = np.bincount(codes), unit_means(rows.assign(prediction=0.0))["tokens"]
        means = np.stack(
            [np.bincount(codes, weights=values) / counts for values in prediction.T], 1
        )
        draws = zip(truth[first].T, means.T, strict=True)
        return [
            word_statistics(
                pd.DataFrame({"unit": units, "truth": t, "prediction": p, "tokens": tokens})
            )
            for t, p in draws
        ]
    return [preference_statistics(t, p) for t, p in zip(truth.T, prediction.T, strict=True)]


def headline(predictions: pd.DataFrame, kind: str) -> str:
    """The main statistic of the probe on the latents, in one line.

    Where there are no latents, it is that of the features that were probed first.
    """
    main = predictions[(predictions["split"] == MAIN_SPLIT[kind]) & (predictions["probe"] == kind)]
    features = (
        "latents" if (main["features"] == "latents").any() else next(iter(main["features"]), "")
    )
    main = main[main["features"] == features]
    if main.empty or main["prediction"].isna().any():
        return UNTRAINED
    name = "tau" if kind == "ridge" else "balanced_accuracy"
    return (
        f"{features} features, {name.replace('_', ' ')}"
        f" {probe_statistics(main, kind)[name]:.3f} held out"
    )
