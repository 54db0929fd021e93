"""Fidelity of autoencoders to the activations of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.models.hooks import site_activations
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.sae.harvest import behind
from lfp.sae.metrics import CROSS_ENTROPIES, Reconstruction
from lfp.sae.pairs.activations import joined_rows


def evaluate_pairs(
    models: tuple[PreTrainedModel, PreTrainedModel],
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    fronts: Sequence[int],
) -> dict[int, list[dict[str, float | None]]]:
    """Fidelity of autoencoders that read a pair or the difference of two models.

    Both models read each batch. What the autoencoders reconstruct is no activation of one model,
    so that no cross-entropy is measured: those of :data:`~lfp.sae.metrics.CROSS_ENTROPIES` are
    None. A token is an outlier where it is one in either model.

    Parameters
    ----------
    models
        Base and policy.
    autoencoders
        Those of each layer, all of one site and one setting ``reads``, with the largest norm of
        what is no outlier in one model.
    sequences
        Token ids of held-out texts; without any, all metrics are None.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    fronts
        Number of tokens in front of each sequence that are left out.

    Returns
    -------
    dict
        Metrics of each autoencoder, by layer and in the order given.
    """
    read = {n: [Reconstruction(sae) for sae in group] for n, group in autoencoders.items()}
    site = site_of({n: group[0] for n, group in autoencoders.items()})
    left = np.array(fronts)
    base, policy = (
        site_activations(model, sequences, sorted(autoencoders), pad, batch_size, site=site)
        for model in models
    )
    for (index, mask, before), (_, _, after) in zip(base, policy, strict=True):
        kept = behind(mask, left[index])
        for layer, group in read.items():
            sides = [values[layer][kept].float() for values in (before, after)]
            for reconstruction in group:
                sae = reconstruction.sae
                norms = torch.stack([side.norm(dim=1) for side in sides])
                inside = ~(norms > sae.largest_norm).any(0)
                reconstruction.left_out += int(mask.sum() - inside.sum())
                one, two = (side[inside] for side in sides)
                reconstruction.add(joined_rows(one, two, sae.reads))
    nothing = dict.fromkeys(CROSS_ENTROPIES) | {"layer_needed": None}
    return {n: [r.metrics() | nothing for r in group] for n, group in read.items()}
