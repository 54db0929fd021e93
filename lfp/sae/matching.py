"""Latents that autoencoders of different size share (paper section 3.4; Sharkey et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from lfp.sae import store
from lfp.sae.architectures.base import SparseAutoencoder


def match_features(small: np.ndarray, large: np.ndarray) -> pd.DataFrame:
    """One-to-one matching of the rows of two dictionaries that maximises the summed cosine.

    The method is the Hungarian algorithm.

    Parameters
    ----------
    small, large
        Decoder directions [features, d_in]; `small` has at most as many rows as `large`.

    Returns
    -------
    Columns ``small``, ``large`` (feature indices) and ``cosine``, from the best match to the worst.
    """
    a = small / np.linalg.norm(small, axis=1, keepdims=True)
    b = large / np.linalg.norm(large, axis=1, keepdims=True)
    cosine = a @ b.T
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    frame = pd.DataFrame(
        {"small": rows, "large": columns, "cosine": cosine[rows, columns].astype(float)}
    )
    return frame.sort_values(["cosine", "small"], ascending=[False, True], ignore_index=True)


def mean_max_cosine(matches: pd.DataFrame) -> float:
    """MMCS of a matching: the mean cosine of the matched pairs."""
    return float(matches["cosine"].mean())


def _directions(sae: SparseAutoencoder) -> np.ndarray:
    return sae.W_dec.detach().cpu().numpy()


def agreement(
    saes: Sequence[SparseAutoencoder], other_seed: SparseAutoencoder | None
) -> tuple[pd.DataFrame, dict[str, float | None]]:
    """The matching of a layer's smallest and largest autoencoder, and three MMCS.

    A latent without a match has the number -1 and no cosine: the smallest may have more of them
    where sizes are not given but come out, and a single autoencoder has nothing to be matched with.

    ``mmcs`` is that of the matching, ``mmcs_untrained`` that of two autoencoders of the same sizes
    before training, which is what chance gives in this width, and ``mmcs_other_seed`` that of the
    smallest with one of its size from another seed; None without one.
    """
    small, large = saes[0], saes[-1]
    if small is large:
        nothing = dict.fromkeys(("mmcs", "mmcs_untrained", "mmcs_other_seed"))
        return _with_all(pd.DataFrame({"small": []}), small.d_sae), nothing
    matches = match_features(_directions(small), _directions(large))
    untrained = match_features(_directions(small.untrained(0)), _directions(large.untrained(1)))
    measured = {
        "mmcs": mean_max_cosine(matches),
        "mmcs_untrained": mean_max_cosine(untrained),
        "mmcs_other_seed": None,
    }
    if other_seed is not None:
        matched = match_features(_directions(small), _directions(other_seed))
        measured["mmcs_other_seed"] = mean_max_cosine(matched)
    return _with_all(matches, small.d_sae), measured


def _with_all(matches: pd.DataFrame, latents: int) -> pd.DataFrame:
    """The `matches` with rows for those of so many latents that have none."""
    left = np.setdiff1d(np.arange(latents), matches["small"])
    if not len(left):
        return matches
    rest = pd.DataFrame({"small": left, "large": -1, "cosine": np.nan})
    return pd.concat([matches, rest], ignore_index=True) if len(matches) else rest


def described_layers(
    folders: Mapping[int, Path],
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    measured: Mapping[int, Sequence[Mapping[str, Any]]],
    device: str,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The matchings of all layers, and a row of every autoencoder.

    Parameters
    ----------
    folders
        The directories of the layers, for the autoencoders from another seed.
    autoencoders, measured
        The autoencoders of each layer in the order of their sizes, and their metrics.
    device
        Device of the autoencoders.

    Returns
    -------
    tuple
        Rows of :func:`match_features` with their ``layer``, and the description, agreement and
        metrics of every autoencoder.
    """
    matches, rows = [], []
    for layer, saes in autoencoders.items():
        matched, agreed = agreement(saes, store.load_other_seed(folders[layer], device))
        matches.append(matched.assign(layer=layer))
        rows += [
            {"layer": layer, **store.described(sae), **agreed, **row}
            for sae, row in zip(saes, measured[layer], strict=True)
        ]
    return pd.concat(matches, ignore_index=True), rows
