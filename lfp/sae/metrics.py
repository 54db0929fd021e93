"""What an autoencoder keeps of the language model that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from lfp.models.hooks import Edit, mlp_outputs, text_losses
from lfp.sae.autoencoder import SparseAutoencoder, reconstruct


def cross_entropy(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    edits: dict[int, Edit],
) -> float:
    """Mean next-token cross-entropy (nats per token) over the real tokens of `sequences` under
    `edits`.
    """
    nats, counts = text_losses(model, sequences, pad, batch_size, edits)
    return float(nats.sum() / counts.sum())


class Reconstruction:
    """How well and how sparsely an autoencoder explains the tokens that it is shown, a batch at a
    time.

    ``l0``: mean number of active features per token; ``mse``: mean over tokens and dimensions;
    ``fvu``: squared error over the variance about the mean (0 for a perfect autoencoder, 1 for the
    mean); ``dead_fraction``: share of features that are active on no token.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self.tokens, self.active, self.error = 0, 0.0, 0.0
        self.alive = torch.zeros(sae.d_sae, dtype=torch.bool, device=sae.b_dec.device)
        self.origin = self.shift = self.square = None

    @torch.no_grad()
    def add(self, x: torch.Tensor) -> None:
        """Take in `x` [token, d_in]."""
        x = x.float()
        code = self.sae.encode(x)
        active = code > 0
        self.tokens += len(x)
        self.active += active.sum().item()
        self.alive |= active.any(0)
        self.error += (x - self.sae.decode(code)).double().pow(2).sum().item()
        if self.origin is None:
            # Sums about a first mean: a variance from sums about 0 loses its digits where the mean
            # is large.
            self.origin = x.double().mean(0)
            self.shift, self.square = torch.zeros_like(self.origin), 0.0
        centred = x.double() - self.origin
        self.shift += centred.sum(0)
        self.square += centred.pow(2).sum().item()

    def metrics(self) -> dict[str, float | None]:
        """The metrics of all tokens so far: none of no token, no ``fvu`` where all activations are
        equal.
        """
        if not self.tokens:
            return dict.fromkeys(("l0", "mse", "fvu", "dead_fraction"))
        variance = self.square - (self.shift.pow(2).sum() / self.tokens).item()
        return {
            "l0": self.active / self.tokens,
            "mse": self.error / (self.tokens * self.sae.d_in),
            "fvu": self.error / variance if variance > 0 else None,
            "dead_fraction": (~self.alive).double().mean().item(),
        }


def evaluate(
    model: PreTrainedModel,
    autoencoders: Mapping[int, Mapping[str, SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> dict[int, dict[str, dict[str, float | None]]]:
    """Metrics by layer and name of `autoencoders` on the model's MLP outputs, and the cross-entropy
    they keep.

    One pass reads all layers for :class:`Reconstruction`. ``loss_recovered`` is (CE_zero - CE_sae)
    / (CE_zero - CE_clean), with the MLP output replaced by 0 and by the reconstruction: 1 for a
    perfect autoencoder. ``layer_needed`` is false where taking the output away raises the
    cross-entropy by less than 1 %: a ratio of two such small numbers says nothing. Without a text
    all metrics are None.
    """
    read = {
        n: {name: Reconstruction(sae) for name, sae in group.items()}
        for n, group in autoencoders.items()
    }
    for _, mask, outputs in mlp_outputs(model, sequences, sorted(autoencoders), pad, batch_size):
        for layer, group in read.items():
            for reconstruction in group.values():
                reconstruction.add(outputs[layer][mask])
    if not sequences:
        nothing = dict.fromkeys(("ce_clean", "ce_reconstructed", "ce_zero", "loss_recovered"))
        return {
            layer: {
                name: {**r.metrics(), **nothing, "layer_needed": False, "tokens": 0}
                for name, r in group.items()
            }
            for layer, group in read.items()
        }
    clean = cross_entropy(model, sequences, pad, batch_size, {})
    result: dict[int, dict[str, dict[str, float | None]]] = {}
    for layer, group in read.items():
        zero = cross_entropy(model, sequences, pad, batch_size, {layer: torch.zeros_like})
        result[layer] = {}
        for name, reconstruction in group.items():
            kept = cross_entropy(
                model, sequences, pad, batch_size, {layer: reconstruct(reconstruction.sae)}
            )
            result[layer][name] = {
                **reconstruction.metrics(),
                "ce_clean": clean, "ce_reconstructed": kept, "ce_zero": zero,
                "loss_recovered": (zero - kept) / (zero - clean) if zero != clean else 1.0,
                "layer_needed": zero > 1.01 * clean, "tokens": reconstruction.tokens,
            }  # fmt: skip
    return result
