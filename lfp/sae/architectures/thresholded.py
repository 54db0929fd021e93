"""The base of architectures whose latents are active above a threshold, and keep their size there.

SAELens calls what they compute JumpReLU, however the thresholds were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder


class Thresholded(SparseAutoencoder):
    """Latents f = z where z > threshold, else 0, with z = ReLU(x W_enc + b_enc).

    A subclass keeps thresholds as its tensor ``level`` [d_sae], a parameter or a buffer, in units
    of ``unit``.
    """

    opened_as = "jumprelu"
    level: torch.Tensor
    unit: float = 1.0

    @property
    def threshold(self) -> torch.Tensor:
        """Thresholds [d_sae], at least 0."""
        return (self.level * self.unit).clamp(min=0)

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`; each is a function of its own column of the encoder."""
        if columns is None:
            pre, threshold = x @ self.W_enc + self.b_enc, self.threshold
        else:
            pre = x @ self.W_enc[:, columns] + self.b_enc[columns]
            threshold = self.threshold[columns]
        return F.relu(pre) * (pre > threshold)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by the names that SAELens gives them, with the ``threshold``."""
        return super().weights() | {"threshold": self.threshold}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the :meth:`weights` of an autoencoder of the same class."""
        super().set_weights(weights)
        self.level.copy_(weights["threshold"] / self.unit)

    @torch.no_grad()
    def fold(self, scale: float) -> None:
        """Take a division of the activations by `scale` in: latents grow, and thresholds with them.

        A shift of the activations goes into ``b_enc`` alone, since pre-activations stay as they
        are.
        """
        super().fold(scale)
        self.level *= scale

    @torch.no_grad()
    def untrained(self, seed: int) -> Self:
        """An autoencoder before training, with the thresholds of this one."""
        fresh = super().untrained(seed)
        fresh.level.copy_(self.threshold)
        return fresh
