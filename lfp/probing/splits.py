"""Splits of contrast triples into folds of training and test rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from lfp.probing.data import ProbeData
from lfp.probing.probes import MAIN_SPLIT
from lfp.settings import Probes


@dataclass(frozen=True)
class Split:
    """How rows are parted into folds.

    Parameters
    ----------
    cut
        Column of the rows whose values are cut into folds: a fold tests the rows of its values.
    apart
        Columns that share no value between training and test rows beside `cut`: training leaves
        out every row that shares one with a test row.
    """

    cut: str
    apart: tuple[str, ...] = ()


#: A triple puts a positive and a negative element behind one context. Where training and test rows
#: share contexts, features of the context alone predict the sign of a held-out word's partner,
#: which is the wrong one; where they share words or answers, a probe may know them by heart. The
#: first three splits let one of the two pass and show its size.
SPLITS = {
    "random": Split("triple"),
    "words_only": Split("word"),
    "prompts_only": Split("context"),
    "by_word": Split("word", apart=("context",)),
    "by_family": Split("family", apart=("word", "context")),
    "by_prompt": Split("context", apart=("word",)),
}
#: The splits of each kind of probe; features beside the latents have the first and the main one.
SPLITS_OF = {
    "ridge": ("random", "words_only", "by_word", "by_family"),
    "logistic": ("random", "words_only", "prompts_only", "by_prompt"),
}


def splits_of(kind: str, features: str) -> tuple[str, ...]:
    """All splits for the latents; the random and the main one for the features beside them."""
    return SPLITS_OF[kind] if features == "latents" else null_splits(kind)


def valence_is_probed(kind: str, features: str, split: str) -> bool:
    """Whether a ridge on the valence itself is fitted beside a probe of words.

    It is fitted on raw activations as well under the main split, for the intensity that a model
    holds.
    """
    latents = features == "latents" and split in null_splits(kind)
    return kind == "ridge" and (latents or (features, split) == ("raw", MAIN_SPLIT[kind]))


def null_splits(kind: str) -> tuple[str, ...]:
    """Splits that probes of permuted labels are fitted on."""
    return ("random", MAIN_SPLIT[kind])


def fold_indices(
    rows: pd.DataFrame, split: str, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row indices of every fold of a split of :data:`SPLITS`.

    Every row is tested once. The folds inside a training part, which choose the regularisation,
    are those of its rows: cut by another rule, they would reward, or punish, the reading of
    contexts, and choose a strength for another task than the one that is judged.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    part = parts(rows[SPLITS[split].cut], folds, seed)
    codes = [pd.factorize(rows[name])[0] for name in SPLITS[split].apart]
    pairs = []
    for i in range(folds):
        test = part == i
        shared = [np.isin(code, code[test]) for code in codes]
        train = ~np.logical_or.reduce([test, *shared])
        pairs.append((np.flatnonzero(train), np.flatnonzero(test)))
    return pairs


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
        Seed of the folds.
    """
    cut, few = SPLITS[split].cut, 2 if kind == "logistic" else 1
    distinct = data.rows[cut].nunique()
    if distinct < settings.folds:
        return f"{distinct} distinct values of {cut} for {settings.folds} folds"
    for train, _ in fold_indices(data.rows, split, settings.folds, seed):
        rows, target = data.rows.iloc[train], data.target[train]
        if rows[cut].nunique() < settings.inner_folds:
            return f"a fold trains on fewer groups than {settings.inner_folds} inner folds"
        if kind == "logistic" and len(set(target.tolist())) < 2:
            return "a fold trains on one class only"
        for part, _ in fold_indices(rows, split, settings.inner_folds, seed):
            if len(set(target[part].tolist())) < few:
                return f"an inner fold trains on {'one class only' if few == 2 else 'no row'}"
    return ""
