"""Fidelity of autoencoders to the language model that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.models.hooks import Edit, edited, site_activations
from lfp.models.losses import text_losses
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.sae.harvest import behind


def cross_entropy(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    edits: dict[int, Edit],
    site: str = "mlp",
) -> float:
    """Mean next-token cross-entropy (nats per token) while a site is edited.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    edits, site
        Edits by layer, and the part of the layer that they change.
    """
    with edited(model, edits, site):
        nats, counts = text_losses(model, sequences, pad, batch_size)
    return float(nats.sum() / counts.sum())


class Reconstruction:
    """Fidelity and sparsity of an autoencoder on the tokens that it is shown, a batch at a time.

    ``l0``: mean number of active latents per token; ``mse``: mean over tokens and dimensions;
    ``fvu``: squared error over the variance about the mean (0 for a perfect autoencoder, 1 for the
    mean); ``dead_fraction``: share of latents that are active on no token. Outliers
    (:mod:`lfp.sae.outliers`) count in none of them.
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae
        self.tokens, self.left_out, self.active, self.error = 0, 0, 0.0, 0.0
        self.alive = torch.zeros(sae.d_sae, dtype=torch.bool, device=sae.b_dec.device)
        self.origin = self.shift = self.square = None

    @torch.no_grad()
    def add(self, x: torch.Tensor) -> None:
        """Take in `x` [token, d_in], and count its outliers as ``left_out``."""
        x = x.float()
        inside = self.sae.within(x)
        self.left_out += int((~inside).sum())
        x = x[inside]
        if not len(x):
            return
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

    def add_texts(self, x: torch.Tensor, mask: torch.Tensor, fronts: np.ndarray) -> None:
        """Take in the tokens of texts `x` [text, token, d_in] under their `mask`.

        As many in front of each as `fronts` says are counted as left out.
        """
        ordinary = behind(mask, fronts)
        self.left_out += int(mask.sum() - ordinary.sum())
        self.add(x[ordinary])

    def metrics(self) -> dict[str, float | None]:
        """The metrics of all tokens so far.

        There are none of no token, and no ``fvu`` where all activations are equal.
        """
        counts = {"tokens": self.tokens, "left_out": self.left_out}
        if not self.tokens:
            return dict.fromkeys(("l0", "mse", "fvu", "dead_fraction")) | counts
        variance = self.square - (self.shift.pow(2).sum() / self.tokens).item()
        return {
            "l0": self.active / self.tokens,
            "mse": self.error / (self.tokens * self.sae.d_in),
            "fvu": self.error / variance if variance > 0 else None,
            "dead_fraction": (~self.alive).double().mean().item(),
            **counts,
        }


def _zeroed(sae: SparseAutoencoder) -> Edit:
    """An edit that sets the activations to 0 that `sae` stands for."""
    return lambda x: sae.spliced(x, torch.zeros_like(x))


def recovered(clean: float, reconstructed: float, zero: float) -> dict[str, float | bool]:
    """The cross-entropies of an autoencoder and what follows from them."""
    return {
        "ce_clean": clean,
        "ce_reconstructed": reconstructed,
        "ce_zero": zero,
        "loss_recovered": (zero - reconstructed) / (zero - clean) if zero != clean else 1.0,
        "layer_needed": zero > 1.01 * clean,
    }


#: Metrics that are None where no text was read.
CROSS_ENTROPIES = ("ce_clean", "ce_reconstructed", "ce_zero", "loss_recovered")


def evaluate(
    model: PreTrainedModel,
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    fronts: Sequence[int] | None = None,
) -> dict[int, list[dict[str, float | None]]]:
    """Fidelity of autoencoders to a model's activations, and the cross-entropy that they keep.

    One pass reads all layers for :class:`Reconstruction`. ``loss_recovered`` is (CE_zero - CE_sae)
    / (CE_zero - CE_clean), with the activations replaced by 0 and by the reconstruction: 1 for a
    perfect autoencoder. ``layer_needed`` is false where taking the activations away raises the
    cross-entropy by less than 1 %: a ratio of two such small numbers says nothing.

    Outliers, and the fronts of texts, count in no metric of activations but in ``left_out``. Where
    activations are replaced, outliers stay as they are.

    Parameters
    ----------
    model
        The model whose activations are read.
    autoencoders
        Those of each layer, all of one site.
    sequences
        Token ids of held-out texts; without any, all metrics are None.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    fronts
        Number of tokens in front of each sequence that are left out
        (:func:`~lfp.sae.reading.left_out`); None for 0.

    Returns
    -------
    dict
        Metrics of each autoencoder, by layer and in the order given.
    """
    read = {n: [Reconstruction(sae) for sae in group] for n, group in autoencoders.items()}
    site = site_of(
        {(n, i): sae for n, group in autoencoders.items() for i, sae in enumerate(group)}
    )
    left = np.zeros(len(sequences), int) if fronts is None else np.array(fronts)
    for index, mask, outputs in site_activations(
        model, sequences, sorted(autoencoders), pad, batch_size, site=site
    ):
        for layer, group in read.items():
            for reconstruction in group:
                reconstruction.add_texts(outputs[layer], mask, left[index])
    if not sequences:
        nothing = dict.fromkeys(CROSS_ENTROPIES) | {"layer_needed": False}
        return {layer: [r.metrics() | nothing for r in group] for layer, group in read.items()}

    def loss(edits: dict[int, Edit]) -> float:
        return cross_entropy(model, sequences, pad, batch_size, edits, site)

    clean = loss({})
    result = {}
    for layer, group in read.items():
        zero = loss({layer: _zeroed(group[0].sae)})
        kept = [loss({layer: reconstruction.sae.reconstruct}) for reconstruction in group]
        result[layer] = [
            reconstruction.metrics() | recovered(clean, remaining, zero)
            for reconstruction, remaining in zip(group, kept, strict=True)
        ]
    return result


def headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """The range of the fraction of variance unexplained over autoencoders' metrics, in a line."""
    fvu = [row["fvu"] for row in rows if row["fvu"] is not None]
    return f"FVU {min(fvu):.3f} to {max(fvu):.3f}" if fvu else "no FVU: nothing varies"
