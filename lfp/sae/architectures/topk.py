"""TopK autoencoders: a token keeps its k largest latents (Gao et al. 2024, section 2.3)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Autoencoder


class TopK(SparseAutoencoder):
    """Latents f = ReLU(TopK(x W_enc + b_enc)).

    Parameters
    ----------
    d_in, d_sae, tied
        As of :class:`~lfp.sae.architectures.base.SparseAutoencoder`.
    k
        The most latents that are active on a token; all where there are fewer.
    """

    architecture = "topk"
    options = ("k",)
    penalties = ()

    def __init__(self, d_in: int, d_sae: int, tied: bool = True, k: int = 32) -> None:
        super().__init__(d_in, d_sae, tied)
        self.k = min(k, d_sae)  # SAELens asks for as many as the configuration says

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`; whether one is active depends on all, so `columns` saves nothing."""
        pre = x @ self.W_enc + self.b_enc
        largest = self.weighed(pre).topk(self.k, dim=-1).indices
        latents = torch.zeros_like(pre).scatter(-1, largest, F.relu(pre.gather(-1, largest)))
        return latents if columns is None else latents[..., columns]

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The squared error; sparsity needs no penalty."""
        latents = self.encode(x)
        error = F.mse_loss(self.decode(latents), x)
        return error, error, latents.sum(1).mean()
