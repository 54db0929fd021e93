"""What a probe learns from: features of elements, activation deltas or labels, and what each row is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workflow_scripts.lfp.lexicon import Lexicon


@dataclass(frozen=True)
class ProbeData:
    """Rows of a probe: `features` [row, feature], `target` [row] and `rows`, a frame that describes each row.

    `rows` has ``triple``, ``element``, ``unit`` (the word or the prompt) and ``truth`` (valence or label).
    """

    features: np.ndarray
    target: np.ndarray
    rows: pd.DataFrame


def signed_distances(
    element: np.ndarray, neutral: np.ndarray, sign: int, layers: int, aggregation: str = "concatenation"
) -> np.ndarray:
    """Activation deltas: `sign` times the L2 distance of `element` to `neutral` [triple, features] -> [triple].

    ``concatenation`` takes one norm over all layers (the authors' code), ``per_layer_sum`` the sum of a norm per
    layer (a reading of the paper's "sum of Euclidean distances"); features are `layers` equal parts.
    """
    difference = element - neutral
    if aggregation == "concatenation":
        return sign * np.linalg.norm(difference, axis=1)
    if aggregation == "per_layer_sum":
        return sign * sum(np.linalg.norm(part, axis=1) for part in np.split(difference, layers, axis=1))
    raise ValueError(f"delta: expected 'concatenation' or 'per_layer_sum', got {aggregation!r}")


def _rows(triples: pd.DataFrame, element: str, unit: pd.Series, truth: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"triple": triples["triple"], "element": element, "unit": unit, "truth": truth})


def word_data(
    arrays: Mapping[str, np.ndarray], triples: pd.DataFrame, lexicon: Lexicon, layers: int, aggregation: str
) -> ProbeData:
    """Regression rows: the positive and the negative word of every triple with its signed delta as target.

    `arrays` holds one kind of features [triple, feature] by element; the unit is the word, the truth its valence.
    """
    parts, targets, rows = [], [], []
    for element, sign in (("positive", 1), ("negative", -1)):
        parts.append(arrays[element])
        targets.append(signed_distances(arrays[element], arrays["neutral"], sign, layers, aggregation))
        words = triples[element].str.lower()
        rows.append(_rows(triples, element, words, words.map(lexicon).to_numpy(dtype=float)))
    return ProbeData(np.concatenate(parts), np.concatenate(targets), pd.concat(rows, ignore_index=True))


def preference_data(arrays: Mapping[str, np.ndarray], triples: pd.DataFrame) -> ProbeData:
    """Classification rows: the positive (1) and the negative (0) answer of every triple; the unit is the prompt."""
    rows = [
        _rows(triples, element, triples["group"], np.full(len(triples), label))
        for element, label in (("positive", 1.0), ("negative", 0.0))
    ]
    frame = pd.concat(rows, ignore_index=True)
    return ProbeData(
        np.concatenate([arrays["positive"], arrays["negative"]]), frame["truth"].to_numpy(dtype=int), frame
    )
