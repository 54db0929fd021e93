"""Controls that a good dictionary must beat, and what sparse probes read of all of them.

``permuted`` is the trained dictionary with its decoder's directions in another order: its code is
as good as ever, and its reconstructions are worse than none. A dictionary that codes with its
directions themselves has no such control. ``untrained`` has random directions.
``other_seed`` is a second training, which says how far apart two numbers lie for no reason.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.probing.contrasts import ELEMENTS
from lfp.probing.features import element_features
from lfp.sae.architectures.base import SparseAutoencoder

#: Kinds of dictionaries: what is judged, and its controls.
TRAINED, OTHER_SEED, PERMUTED, UNTRAINED = "trained", "other_seed", "permuted", "untrained"
KINDS = (TRAINED, OTHER_SEED, PERMUTED, UNTRAINED)
#: Kinds that learned, whose geometry says something.
LEARNED = (TRAINED, OTHER_SEED)
#: The activations themselves, beside the codes of dictionaries.
RAW = "raw"


@torch.no_grad()
def permuted(sae: SparseAutoencoder, seed: int) -> SparseAutoencoder:
    """An untied `sae` whose latents have each other's directions, and the code of before.

    The order is drawn from the `seed`; no latent keeps its own direction.
    """
    result = copy.deepcopy(sae)
    order = np.random.default_rng(seed).permutation(sae.d_sae)
    shifted = np.empty_like(order)
    shifted[order] = np.roll(order, 1)  # one cycle through all latents
    result.decoder.copy_(sae.decoder[torch.from_numpy(shifted).to(sae.decoder.device)])
    return result


def with_controls(
    trained: Sequence[SparseAutoencoder], other_seed: SparseAutoencoder | None, seed: int
) -> list[tuple[str, SparseAutoencoder]]:
    """The dictionaries of a layer by their kind, and the controls of the first of them.

    `trained` has one of each size, ascending, and `other_seed` is None where none was trained.
    """
    first = trained[0]
    untrained = first.untrained(seed)
    untrained.largest_norm, untrained.metadata = first.largest_norm, first.metadata
    kinds = [(TRAINED, sae) for sae in trained]
    kinds += [(OTHER_SEED, other_seed)] if other_seed is not None else []
    # A pursuit follows its directions wherever they stand: their order is that of the code alone.
    kinds += [(PERMUTED, permuted(first, seed))] if first.encodes_apart else []
    return [*kinds, (UNTRAINED, untrained)]


def codes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dictionaries: Mapping[int, Sequence[tuple[str, SparseAutoencoder]]],
    triples: pd.DataFrame,
    max_tokens: int,
    batch_size: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Mean codes of the elements of contrast triples, and the activations themselves.

    Parameters
    ----------
    model, tokenizer
        The model whose activations are read.
    dictionaries
        Those of each layer with their kinds (:func:`with_controls`); the first of each kind counts.
    triples
        Contrast triples with their ``prompt``.
    max_tokens, batch_size
        Tokens of a text, and sequences in a batch.

    Returns
    -------
    dict
        By kind, and :data:`RAW`, the features of every element [triple, feature], those of all
        layers side by side. A kind that some layer lacks is left out.
    """
    of_layer = {layer: dict(reversed(of)) for layer, of in dictionaries.items()}
    shared = [
        kind for kind in KINDS if of_layer and all(kind in kinds for kinds in of_layer.values())
    ]
    result: dict[str, dict[str, np.ndarray]] = {}
    for kind in shared:
        saes = {layer: kinds[kind] for layer, kinds in of_layer.items()}
        wanted = {"latents": kind} | ({RAW: RAW} if kind == TRAINED else {})
        arrays = element_features(
            model, tokenizer, saes, triples, [*wanted], max_tokens, batch_size
        )
        for read, name in wanted.items():
            result[name] = {element: arrays[f"{read}.{element}"] for element in ELEMENTS}
    return result
