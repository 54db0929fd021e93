"""Gated autoencoders: one path says whether a latent is active, another how much.

(arXiv:2404.16014.) The L1 norm that makes latents sparse also makes them too small; here it weighs
on the first path alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Autoencoder


class Gated(SparseAutoencoder):
    """Latents f = ReLU(exp(r_mag) p + b_mag) where p + b_enc > 0, else 0, with p = x W_enc.

    Notes
    -----
    The gate's bias is SAELens's ``b_gate``. A gate has no gradient of its own: ReLU(p + b_enc) is
    penalised, and must reconstruct the activations by itself with the decoder held fixed.
    """

    architecture = "gated"
    per_latent = ("decoder", "b_enc", "b_mag", "r_mag")

    def __init__(self, d_in: int, d_sae: int, tied: bool = True) -> None:
        super().__init__(d_in, d_sae, tied)
        self.b_mag, self.r_mag = (nn.Parameter(torch.zeros(d_sae)) for _ in range(2))

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`; each is a function of its own column of the encoder."""
        chosen = slice(None) if columns is None else columns
        shared = x @ self.W_enc[:, chosen]
        size = F.relu(self.r_mag[chosen].exp() * shared + self.b_mag[chosen])
        return size * (shared + self.b_enc[chosen] > 0)

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Squared error, the `penalty` times the mean L1 norm of gates, and the error of gates."""
        w_dec = self.W_dec
        shared = x @ (w_dec.T if self.encoder is None else self.encoder)
        gate = F.relu(shared + self.b_enc)
        latents = F.relu(self.r_mag.exp() * shared + self.b_mag) * (gate > 0)
        error = F.mse_loss(latents @ w_dec + self.b_dec, x)
        of_gates = F.mse_loss(gate @ w_dec.detach() + self.b_dec.detach(), x)
        sparsity = self.weighed(gate).sum(1).mean()
        return error + penalty * sparsity + of_gates, error, sparsity

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights by the names that SAELens gives them."""
        weights = super().weights()
        gate = weights.pop("b_enc")
        return weights | {"b_gate": gate, "b_mag": self.b_mag, "r_mag": self.r_mag}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the :meth:`weights` of a gated autoencoder."""
        super().set_weights({**weights, "b_enc": weights["b_gate"]})
        self.b_mag.copy_(weights["b_mag"])
        self.r_mag.copy_(weights["r_mag"])

    @torch.no_grad()
    def fold(self, scale: float) -> None:
        """Take a division of the activations by `scale` in: both paths grow."""
        super().fold(scale)
        self.b_mag *= scale

    @torch.no_grad()
    def shift(self, mean: torch.Tensor) -> None:
        """Take a subtraction of `mean` [d_in] from the activations into both paths' biases."""
        self.b_mag -= self.r_mag.exp() * (mean @ self.W_enc)
        super().shift(mean)

    @torch.no_grad()
    def restart(self, latents: torch.Tensor, directions: torch.Tensor, x: torch.Tensor) -> None:
        """Let `latents` begin anew, each active on as many of the tokens `x` as others are."""
        bias = -self.usual_level(directions, x)
        super().restart(latents, directions, x)
        self.b_enc[latents], self.b_mag[latents] = bias, bias
        self.r_mag[latents] = 0.0
