"""What a probe learns from: features of elements, activation deltas or labels, and what each row is
about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lfp.texts.words import WORD, Lexicon

#: The elements that a probe learns from, with the sign of their delta.
SIGNS = {"positive": 1, "negative": -1}
#: Features that are the text itself.
READ_TEXT = ("bag_of_words", "tfidf")


@dataclass(frozen=True)
class ProbeData:
    """Rows of a probe: `features`, `target` [row] and `rows`, a frame that describes each row.

    `features` is [row, feature], or [row] of texts for the controls that read words. `rows` has
    ``triple``, ``element``, ``word`` (the word, or the whole answer), ``context`` (the review or
    the prompt that it stands in), ``unit`` (what a statistic counts: the word, or the prompt) and
    ``truth`` (valence, or label). `code` [row, feature] is given where the features are to be cut
    to as many principal components as the code has live features.
    """

    features: np.ndarray
    target: np.ndarray
    rows: pd.DataFrame
    code: np.ndarray | None = None


def signed_distances(
    element: np.ndarray,
    neutral: np.ndarray,
    sign: int,
    layers: int,
    aggregation: str = "concatenation",
) -> np.ndarray:
    """Activation deltas: `sign` times the L2 distance of `element` to `neutral` [triple, features]
    -> [triple].

    ``concatenation`` takes one norm over all layers (the authors' code), ``per_layer_sum`` the sum
    of a norm per layer (a reading of the paper's "sum of Euclidean distances"); features are
    `layers` equal parts.
    """
    difference = element - neutral
    if aggregation == "concatenation":
        return sign * np.linalg.norm(difference, axis=1)
    if aggregation == "per_layer_sum":
        return sign * sum(
            np.linalg.norm(part, axis=1) for part in np.split(difference, layers, axis=1)
        )
    raise ValueError(f"delta: expected 'concatenation' or 'per_layer_sum', got {aggregation!r}")


def _rows(triples: pd.DataFrame, element: str, unit: str, truth: np.ndarray) -> pd.DataFrame:
    words, context = triples[element].str.lower(), triples["group"]
    return pd.DataFrame({
        "triple": triples["triple"], "element": element, "word": words, "context": context,
        "unit": {"word": words, "prompt": context}[unit], "truth": truth,
    })  # fmt: skip


def word_rows(triples: pd.DataFrame, lexicon: Lexicon) -> pd.DataFrame:
    """The positive and the negative word of every triple; the unit is the word, the truth its
    valence.
    """
    parts = [
        _rows(
            triples,
            element,
            "word",
            triples[element].str.lower().map(lexicon).to_numpy(dtype=float),
        )
        for element in SIGNS
    ]
    return pd.concat(parts, ignore_index=True)


def preference_rows(triples: pd.DataFrame) -> pd.DataFrame:
    """The positive (truth 1) and the negative (truth 0) answer of every triple; the unit is the
    prompt.
    """
    parts = [
        _rows(triples, element, "prompt", np.full(len(triples), float(sign > 0)))
        for element, sign in SIGNS.items()
    ]
    return pd.concat(parts, ignore_index=True)


def word_targets(arrays: Mapping[str, np.ndarray], layers: int, aggregation: str) -> np.ndarray:
    """Signed delta of every row of :func:`word_rows` from one kind of features {element: [triple,
    feature]}.
    """
    deltas = [
        signed_distances(arrays[element], arrays["neutral"], sign, layers, aggregation)
        for element, sign in SIGNS.items()
    ]
    return np.concatenate(deltas)


def stacked(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Features of every row of :func:`word_rows` or :func:`preference_rows` from {element: [triple,
    feature]}.
    """
    return np.concatenate([arrays[element] for element in SIGNS])


def texts(triples: pd.DataFrame) -> np.ndarray:
    """The text that a model reads for every row: prompt and element."""
    return np.concatenate(
        [(triples["prompt"] + triples[element]).to_numpy(dtype=object) for element in SIGNS]
    )


def log_frequency(rows: pd.DataFrame, counts: Mapping[str, int]) -> np.ndarray:
    """Mean log(1 + training count) of the words of every row's element."""
    words = [[match.group() for match in WORD.finditer(text)] for text in rows["word"]]
    return np.array(
        [np.mean([np.log1p(counts.get(word, 0)) for word in row] or [0.0]) for row in words]
    )
