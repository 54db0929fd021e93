"""Data of a probe: features of elements, activation deltas or labels, and descriptions of rows."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from snowballstemmer import stemmer

from lfp.files.artefacts import read_metadata, read_tensors, readable
from lfp.probing.contrasts import ELEMENTS
from lfp.texts.words import WORD, Lexicon

#: The elements that a probe learns from, with the sign of their delta.
SIGNS = {"positive": 1, "negative": -1}
#: Features that are the text itself.
READ_TEXT = ("bag_of_words", "tfidf")


class FileFeatures(Mapping[str, Mapping[str, np.ndarray]]):
    """Features in a file of the stage ``features``, by kind and element.

    A kind is read when it is asked for, so that memory holds no more than the kinds in use.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def __getitem__(self, kind: str) -> dict[str, np.ndarray]:
        names = {f"{kind}.{element}": element for element in ELEMENTS}
        tensors = read_tensors(self.path, list(names))
        return {element: tensors[name] for name, element in names.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @cached_property
    def _kinds(self) -> list[str]:
        with readable(self.path) as file, safe_open(file, framework="numpy") as handle:
            return sorted({name.rpartition(".")[0] for name in handle.keys()})  # noqa: SIM118


@dataclass(frozen=True)
class FeatureArrays:
    """Features of one subject's elements.

    ``kinds[kind][element]`` is an array [triple, feature] in which the features of the subject's
    `layers` layers stand beside each other, in equal parts.
    """

    kinds: Mapping[str, Mapping[str, np.ndarray]]
    layers: int

    @classmethod
    def of_file(cls, path: str | Path) -> FeatureArrays:
        """The features of a file of the stage ``features``, each kind read when it is asked for."""
        return cls(FileFeatures(path), len(json.loads(read_metadata(path)["layers"])))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], layers: int) -> FeatureArrays:
        """The features of arrays by ``kind.element``, as the stage ``features`` returns them."""
        kinds: dict[str, dict[str, np.ndarray]] = {}
        for name, array in arrays.items():
            kind, element = name.split(".")
            kinds.setdefault(kind, {})[element] = array
        return cls(kinds, layers)

    def holding(self, kind: str) -> FeatureArrays:
        """The same features with the arrays of `kind` held, so that they are read only once."""
        return FeatureArrays(ChainMap({kind: self.kinds[kind]}, self.kinds), self.layers)

    def width(self, kind: str) -> int:
        """Number of features of a kind."""
        return next(iter(self.kinds[kind].values())).shape[1]


@dataclass(frozen=True)
class ProbeData:
    """Rows of a probe: `features`, `target` [row] and `rows`, a frame that describes each row.

    `features` is [row, feature], or [row] of texts for the controls that read words. `rows` has
    ``triple``, ``element``, ``word`` (the word, or the whole answer), ``context`` (the review or
    the prompt that it stands in), ``unit`` (the thing that a statistic counts: the word, or the
    prompt) and ``truth`` (valence, or label). Rows of words have their ``family`` as well, and
    in the predictions of a subject the number of their ``tokens``. `code` [row, feature] is given
    where the features are to be cut to as many principal components as the code has live features.
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
    """Activation deltas [triple]: the signed L2 distances of elements to the neutral ones.

    Parameters
    ----------
    element, neutral
        Features [triple, feature], in `layers` equal parts.
    sign
        1 for positive elements, -1 for negative ones.
    layers
        Number of layers whose features stand beside each other.
    aggregation
        ``concatenation`` takes one norm over all layers (the authors' code), ``per_layer_sum`` the
        sum of a norm per layer (a reading of the paper's "sum of Euclidean distances").

    Raises
    ------
    ValueError
        For another `aggregation`.
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
    """The positive and the negative word of every triple.

    The unit is the word, the truth its valence. Words of one ``family`` have one stem (Porter's
    second algorithm): *hopeful*, *hopefully*, *hoping*.
    """
    stem = stemmer("english").stemWord
    parts = [
        _rows(
            triples,
            element,
            "word",
            triples[element].str.lower().map(lexicon).to_numpy(dtype=float),
        )
        for element in SIGNS
    ]
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(family=rows["word"].map(stem))


def preference_rows(triples: pd.DataFrame) -> pd.DataFrame:
    """The positive (truth 1) and the negative (truth 0) answer of every triple.

    The unit is the prompt.
    """
    parts = [
        _rows(triples, element, "prompt", np.full(len(triples), float(sign > 0)))
        for element, sign in SIGNS.items()
    ]
    return pd.concat(parts, ignore_index=True)


def word_targets(arrays: Mapping[str, np.ndarray], layers: int, aggregation: str) -> np.ndarray:
    """Signed delta of every row of :func:`word_rows`.

    `arrays` are one kind of features {element: [triple, feature]}.
    """
    deltas = [
        signed_distances(arrays[element], arrays["neutral"], sign, layers, aggregation)
        for element, sign in SIGNS.items()
    ]
    return np.concatenate(deltas)


def stacked(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Features of every row of :func:`word_rows` or :func:`preference_rows`.

    `arrays` are {element: [triple, feature]}.
    """
    return np.concatenate([arrays[element] for element in SIGNS])


def probe_data(
    kind: str,
    arrays: FeatureArrays,
    triples: pd.DataFrame,
    rows: pd.DataFrame,
    targets: Callable[[Mapping[str, np.ndarray] | None], np.ndarray],
) -> ProbeData:
    """The data of a probe that reads one kind of features.

    Parameters
    ----------
    kind
        A kind of `arrays`; ``pca`` for principal components of ``raw``, as many as the latents
        have live features; or one of :data:`READ_TEXT`.
    arrays
        Features of the elements.
    triples
        Contrast triples.
    rows
        Description of the rows, from :func:`word_rows` or :func:`preference_rows`.
    targets
        Gives the target [row] for the features by element that the probe reads (None for text).
    """
    if kind in READ_TEXT:
        return ProbeData(texts(triples), targets(None), rows)
    features = arrays.kinds["raw" if kind == "pca" else kind]
    code = stacked(arrays.kinds["latents"]) if kind == "pca" else None
    return ProbeData(stacked(features), targets(features), rows, code)


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
