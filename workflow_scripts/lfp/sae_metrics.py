"""What an autoencoder keeps of the language model that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from workflow_scripts.lfp.activations import Edit, mlp_outputs, text_losses
from workflow_scripts.lfp.autoencoder import SparseAutoencoder, reconstruct, reconstruction_metrics


def cross_entropy(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad: int, batch_size: int, edits: dict[int, Edit]
) -> float:
    """Mean next-token cross-entropy (nats per token) over the real tokens of `sequences` under `edits`."""
    nats, counts = text_losses(model, sequences, pad, batch_size, edits)
    return float(nats.sum() / counts.sum())


def evaluate(
    model: PreTrainedModel,
    autoencoders: Mapping[str, SparseAutoencoder],
    layer: int,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    clean: float,
) -> dict[str, dict[str, float]]:
    """Reconstruction metrics of a layer's `autoencoders` on its MLP outputs, and the cross-entropy they keep.

    ``loss_recovered`` is (CE_zero - CE_sae) / (CE_zero - CE_clean), with the MLP output replaced by 0 and by the
    reconstruction: 1 for a perfect autoencoder. ``layer_needed`` is false where taking the output away raises the
    cross-entropy by less than 1 %: a ratio of two such small numbers says nothing.
    `clean` is the cross-entropy of the untouched model (:func:`cross_entropy` with no edits).
    """
    outputs = [
        values[layer][mask].float() for _, mask, values in mlp_outputs(model, sequences, [layer], pad, batch_size)
    ]
    activations = torch.cat(outputs).cpu().numpy()
    zero = cross_entropy(model, sequences, pad, batch_size, {layer: torch.zeros_like})
    result = {}
    for name, sae in autoencoders.items():
        kept = cross_entropy(model, sequences, pad, batch_size, {layer: reconstruct(sae)})
        recovered = (zero - kept) / (zero - clean) if zero != clean else 1.0
        result[name] = {
            **reconstruction_metrics(sae, activations),
            "ce_clean": clean, "ce_reconstructed": kept, "ce_zero": zero, "loss_recovered": recovered,
            "layer_needed": zero > 1.01 * clean, "tokens": len(activations),
        }  # fmt: skip
    return result
