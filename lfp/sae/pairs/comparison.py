"""The latents of a layer that tell policy from base, with their null, for every kind of dictionary.

A crosscoder is held against one of shuffled sides, a dictionary of the policy against one of the
base and both against their other seeds, and a dictionary of the difference stands by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lfp.sae import store
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.pairs.activations import Material, material
from lfp.sae.pairs.specific import (
    against_null,
    difference_latents,
    mean_share,
    pair_latents,
    unique_latents,
)
from lfp.settings import FeatureDiff

#: Columns of the latents; those that do not apply to a kind of dictionary are missing.
COLUMNS = (
    "kind", "null", "layer", "latent", "frequency", "dnorm", "nu_error", "nu_recon",
    "cosine_to_base", "cosine_to_seed", "null_quantile", "specific", "mean_share",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """The artefacts of a layer that its latents are compared by.

    Parameters
    ----------
    folder
        Directory of the layer's dictionaries.
    null
        That of the dictionary of shuffled sides, for one that reads a pair.
    base
        That of the dictionaries of the base, for one that reads the policy.
    activations
        Folders of the activations of base and policy, for one that reads both.
    """

    folder: Path
    null: Path | None
    base: Path | None
    activations: Sequence[str]

    def first(self, folder: Path) -> SparseAutoencoder:
        """The dictionary of the first size in a directory."""
        return store.load(store.size_folder(folder, store.sizes(folder)[0]))

    def read(self, layer: int, reads: str, shuffled: bool = False) -> Material:
        """The activations of both models."""
        base, policy = self.activations
        return material(policy, base, layer, reads, shuffled)


def compared_latents(compared: Compared, layer: int, settings: FeatureDiff) -> pd.DataFrame:
    """A row per latent of a layer's first size and of its null, with :data:`COLUMNS`.

    Parameters
    ----------
    compared
        The layer's artefacts.
    layer
        The layer.
    settings
        Thresholds, and the number of tokens.
    """
    sae = compared.first(compared.folder)
    if compared.base is not None:
        others = [store.load_other_seed(one) for one in (compared.folder, compared.base)]
        frame = unique_latents(sae, others[0], compared.first(compared.base), others[1], settings)
        return frame.assign(layer=layer).reindex(columns=COLUMNS)
    read = compared.read(layer, sae.reads)
    joined, rows = read.activations, _last(read, settings.tokens)
    if sae.reads == "pair":
        null, other = compared.first(compared.null), compared.read(layer, "pair", shuffled=True)
        frame = against_null(
            pair_latents(sae, joined, rows), pair_latents(null, other.activations, rows), settings
        )
    else:
        frame = difference_latents(sae, joined, rows)
    return frame.assign(layer=layer, mean_share=mean_share(joined, rows)).reindex(columns=COLUMNS)


def _last(read: Material, tokens: int) -> np.ndarray:
    """The last ordinary rows of the activations, as many as `tokens` at most."""
    rows = np.arange(len(read.activations)) if read.rows is None else read.rows
    return rows[-tokens:]


def directions(compared: Compared) -> np.ndarray | None:
    """Directions of the latents of :func:`compared_latents` in the policy [latent, width].

    They come in the same order; of the null of two seeds in the base. None at a site that is no
    part of the residual stream.
    """
    sae = compared.first(compared.folder)
    if sae.site == "heads":
        return None
    both = [sae]
    if compared.null is not None:
        both.append(compared.first(compared.null))
    if compared.base is not None:
        both.append(store.load_other_seed(compared.base))
    return np.concatenate([one.halves()[:, -1].numpy() for one in both])
