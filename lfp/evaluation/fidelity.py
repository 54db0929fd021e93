"""Fidelity of dictionaries and of their controls on held-out text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.evaluation.controls import LEARNED
from lfp.evaluation.geometry import decoder_geometry
from lfp.models.hooks import site_activations
from lfp.models.tokens import added_tokens
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.sae.metrics import Reconstruction
from lfp.sae.reading import encoded, left_out, split_texts
from lfp.sae.store import size_of
from lfp.settings import Activations
from lfp.texts.corpora import documents, has_pairs


class Shrinking(Reconstruction):
    """The metrics of :class:`~lfp.sae.metrics.Reconstruction`, and ``shrinkage``.

    It is E|x_hat|^2 / E[x_hat x] about the mean of x: 1 where reconstructions are as long as they
    should be, and less where they are too short (arXiv:2404.16014, section 3.2).
    """

    def __init__(self, sae: SparseAutoencoder) -> None:
        super().__init__(sae)
        self.sums: dict[str, torch.Tensor | float] = {}

    @torch.no_grad()
    def add(self, x: torch.Tensor) -> None:
        """Take in `x` [token, d_in]."""
        super().add(x)
        x = x.float()
        x = x[self.sae.within(x)]
        if not len(x):
            return
        # About the first mean, as the variance is.
        output = self.sae.decode(self.sae.encode(x)).double() - self.origin
        centred = x.double() - self.origin
        sums = {
            "output": output.sum(0), "length": output.pow(2).sum().item(),
            "product": (output * centred).sum().item(),
        }  # fmt: skip
        self.sums = {name: value + self.sums.get(name, 0) for name, value in sums.items()}

    def metrics(self) -> dict[str, float | None]:
        """The metrics of all tokens so far; ``shrinkage`` is None without tokens or variance."""
        return super().metrics() | {"shrinkage": self._shrinkage()}

    def _shrinkage(self) -> float | None:
        if not self.tokens:
            return None
        mean, output = self.shift / self.tokens, self.sums["output"]
        # Sums about the mean from those about the origin.
        length = self.sums["length"] - 2 * (mean @ output) + self.tokens * (mean @ mean)
        product = self.sums["product"] - mean @ output
        return (length / product).item() if product > 0 else None


def held_out(
    tokenizer: PreTrainedTokenizerBase, corpus: pd.DataFrame, settings: Activations
) -> tuple[list[list[int]], np.ndarray]:
    """Token ids of the texts of a `corpus` that no autoencoder learns from.

    Beside them stand the numbers of tokens in front of each that are left out
    (:func:`~lfp.sae.reading.left_out`).
    """
    read, texts = split_texts(documents(corpus), settings)
    sequences = encoded(tokenizer, texts, settings, least=2)
    added, known = len(added_tokens(tokenizer)[0]), encoded(tokenizer, read, settings)
    return sequences, left_out(sequences, added, has_pairs(corpus), known)[0]


def fidelity(
    model: PreTrainedModel,
    dictionaries: Mapping[int, Sequence[tuple[str, SparseAutoencoder]]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    fronts: Sequence[int],
) -> list[dict[str, Any]]:
    """Sparsity, fidelity and geometry of dictionaries of one site on held-out text, in one pass.

    Parameters
    ----------
    model
        The model whose activations they have learned.
    dictionaries
        Those of each layer with their kinds (:func:`~lfp.evaluation.controls.with_controls`).
    sequences, fronts
        Token ids of held-out texts, and the number of tokens in front of each that are left out.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.

    Returns
    -------
    list
        A row for each with ``layer``, ``kind``, ``size``, the numbers ``d_in`` of dimensions and
        ``d_sae`` of latents, the metrics of :class:`Shrinking`, and for those that learned
        :func:`~lfp.evaluation.geometry.decoder_geometry`.
    """
    read = {n: [(kind, Shrinking(sae)) for kind, sae in of] for n, of in dictionaries.items()}
    places = {(n, i): sae for n, of in dictionaries.items() for i, (_, sae) in enumerate(of)}
    left = np.array(fronts, int)
    for index, mask, outputs in site_activations(
        model, sequences, sorted(dictionaries), pad, batch_size, site=site_of(places)
    ):
        for layer, of_layer in read.items():
            for _, reading in of_layer:
                reading.add_texts(outputs[layer], mask, left[index])
    rows = []
    for layer, of_layer in read.items():
        for kind, reading in of_layer:
            sae = reading.sae
            about = {"layer": layer, "kind": kind, "size": size_of(sae)}
            about |= {"d_in": sae.d_in, "d_sae": sae.d_sae}
            geometry = decoder_geometry(sae) if kind in LEARNED else {}
            rows.append({**about, **reading.metrics(), **geometry})
    return rows
