"""Splits of contrast triples into folds of training and test rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, KFold

from lfp.probing.data import ProbeData
from lfp.probing.probes import MAIN_SPLIT
from lfp.settings import Probes

#: The column of rows that a split holds out, by which the folds inside its training part are
#: grouped as well. ``random`` is random over triples, so that a test word is among the training
#: words.
SPLITS = {"random": "triple", "by_word": "word", "by_context": "context", "by_both": "word"}
#: Parts of the words and of the contexts of ``by_both``, which fits a probe for every pair of
#: parts.
BOTH_PARTS = 3


def splits_of(kind: str, features: str) -> tuple[str, ...]:
    """All splits for the latents; the random and the main one for the features beside them.

    Raw activations have ``by_both`` as well where words are probed, for the intensity that a model
    holds (:func:`valence_is_probed`).
    """
    if features == "latents":
        return tuple(SPLITS)
    both = ("by_both",) if kind == "ridge" and features == "raw" else ()
    return (*null_splits(kind), *both)


def valence_is_probed(kind: str, features: str, split: str) -> bool:
    """Whether a ridge on the valence itself is fitted beside a probe of words."""
    latents = features == "latents" and split in null_splits(kind)
    return kind == "ridge" and (latents or (features, split) == ("raw", "by_both"))


def null_splits(kind: str) -> tuple[str, ...]:
    """Splits that probes of permuted labels are fitted on."""
    return ("random", MAIN_SPLIT[kind])


def fold_indices(
    rows: pd.DataFrame, split: str, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row indices of every fold of a split of :data:`SPLITS`.

    Every row is tested once.

    ``by_both`` cuts words and contexts in :data:`BOTH_PARTS` parts each: a fold tests one part of
    the words in one part of the contexts and trains on the rows that share neither.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if split == "by_both":
        word, context = (parts(rows[name], BOTH_PARTS, seed) for name in ("word", "context"))
        cells = [(word == i, context == j) for i in range(BOTH_PARTS) for j in range(BOTH_PARTS)]
        pairs = [(np.flatnonzero(~w & ~c), np.flatnonzero(w & c)) for w, c in cells]
        return [(train, test) for train, test in pairs if len(test)]
    part = parts(rows[SPLITS[split]], folds, seed)
    return [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(folds)]


def parts(groups: pd.Series, n: int, seed: int) -> np.ndarray:
    """The part 0..n-1 of every row; rows of one group share theirs."""
    names, codes = np.unique(groups.to_numpy(), return_inverse=True)
    part = np.empty(len(names), dtype=int)
    for i, (_, members) in enumerate(KFold(n, shuffle=True, random_state=seed).split(names)):
        part[members] = i
    return part[codes]


def why_untrainable(data: ProbeData, kind: str, split: str, settings: Probes, seed: int = 0) -> str:
    """The reason that no probe can be trained and judged on a split; empty where one can.

    Parameters
    ----------
    data
        Targets and descriptions of the rows.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`SPLITS`.
    settings
        Outer and inner folds.
    seed
        Seed of the outer folds.
    """
    needed = BOTH_PARTS if split == "by_both" else settings.folds
    names = ("word", "context") if split == "by_both" else (SPLITS[split],)
    for name in names:
        distinct = data.rows[name].nunique()
        if distinct < needed:
            return f"{distinct} distinct values of {name} for {needed} folds"
    for train, _ in fold_indices(data.rows, split, settings.folds, seed):
        if data.rows[SPLITS[split]].iloc[train].nunique() < settings.inner_folds:
            return f"a fold trains on fewer groups than {settings.inner_folds} inner folds"
        if kind == "logistic" and len(set(data.target[train].tolist())) < 2:
            return "a fold trains on one class only"
        inner = GroupKFold(settings.inner_folds)
        groups = data.rows[SPLITS[split]].iloc[train]
        if kind == "logistic" and any(
            len(set(data.target[train[part]].tolist())) < 2
            for part, _ in inner.split(train, groups=groups)
        ):
            return "an inner fold trains on one class only"
    return ""
