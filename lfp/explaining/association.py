"""Association of features with the feedback (interpretation study 3.5).

The feedback is the valence of the words that a feature fires on, or the preferred answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lfp.texts.words import Lexicon


@dataclass(frozen=True)
class WordActivations:
    """Activations of one layer's features on a corpus, by word.

    ``mean`` [word, feature] is the mean activation on the tokens of each word, ``count`` [word] the
    number of those tokens; ``frequency``, ``mean_activation`` and ``max_activation`` [feature] are
    over all tokens.
    """

    words: list[str]
    count: np.ndarray
    mean: np.ndarray
    frequency: np.ndarray
    mean_activation: np.ndarray
    max_activation: np.ndarray


def word_weights(activations: WordActivations) -> np.ndarray:
    """Weights [word, feature] of the words that a feature fires on.

    A weight is the mean activation times the square root of the word's count.
    """
    return activations.mean * np.sqrt(activations.count)[:, None]


def lexicon_association(
    activations: WordActivations, lexicon: Lexicon, permutations: int, seed: int
) -> pd.DataFrame:
    """The valence of the words that each feature fires on.

    Columns are ``direction``, ``effect`` (absolute) and ``p`` per feature.

    Words are weighted by :func:`word_weights`; ``direction`` is the weighted mean valence, words
    outside the lexicon counting 0. p is two-sided, from shuffling valences among words of the same
    frequency decile.
    """
    weights = word_weights(activations)
    weights = weights / np.maximum(weights.sum(0), 1e-12)
    valence = np.array([lexicon.get(word, 0.0) for word in activations.words])
    direction = valence @ weights
    ranks = np.argsort(np.argsort(activations.count, kind="stable"), kind="stable")
    decile = ranks * 10 // max(1, len(ranks))
    rng = np.random.default_rng(seed)
    shuffled = np.tile(valence, (permutations, 1))
    for group in np.unique(decile):
        members = np.flatnonzero(decile == group)
        shuffled[:, members] = rng.permuted(shuffled[:, members], axis=1)
    null = shuffled @ weights
    centre = null.mean(0)
    p = (1 + (np.abs(null - centre) >= np.abs(direction - centre) - 1e-12).sum(0)) / (
        permutations + 1
    )
    return pd.DataFrame({"direction": direction, "effect": np.abs(direction), "p": p})


def preference_association(
    chosen: np.ndarray, rejected: np.ndarray, permutations: int, seed: int
) -> pd.DataFrame:
    """The power of each feature to tell preferred from rejected answers.

    Columns are ``direction``, ``effect`` and ``p`` per feature.

    `chosen` and `rejected` are mean activations [pair, feature] on answers that no probe is tested
    on. ``effect`` is the area under the ROC curve or its complement, whichever is larger,
    ``direction`` that area minus one half; p is two-sided, from exchanging the answers within
    pairs.
    """
    n = len(chosen)
    ranks = rankdata(np.concatenate([chosen, rejected]), axis=0)
    of_chosen, of_rejected = ranks[:n], ranks[n:]

    def area(rank_sum: np.ndarray) -> np.ndarray:
        return (rank_sum - n * (n + 1) / 2) / n**2 - 0.5

    direction = area(of_chosen.sum(0))
    swaps = np.random.default_rng(seed).random((permutations, n)) < 0.5
    null = np.abs(area((~swaps).astype(float) @ of_chosen + swaps.astype(float) @ of_rejected))
    p = (1 + (null >= np.abs(direction) - 1e-12).sum(0)) / (permutations + 1)
    return pd.DataFrame({"direction": direction, "effect": 0.5 + np.abs(direction), "p": p})
