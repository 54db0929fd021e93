"""The paper's autoencoder: ReLU latents with an L1 penalty, tied or not (section 3.2, Eq. 1-2).

The scaling of the loss (mean over tokens *and* dimensions) and the decoder bias are the authors';
the equations leave out both (paper_vs_code 2a-9, 2a-10).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Autoencoder


class Standard(SparseAutoencoder):
    """Latents f = ReLU(x W_enc + b_enc)."""

    architecture = "standard"

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`; each is a function of its own column of the encoder."""
        if columns is None:
            return F.relu(x @ self.W_enc + self.b_enc)
        return F.relu(x @ self.W_enc[:, columns] + self.b_enc[columns])

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Squared error plus the `penalty` times the mean L1 norm of a token's latents."""
        w_dec = self.W_dec
        latents = F.relu(x @ (w_dec.T if self.encoder is None else self.encoder) + self.b_enc)
        error = F.mse_loss(latents @ w_dec + self.b_dec, x)
        sparsity = self.weighed(latents).sum(1).mean()
        return error + penalty * sparsity, error, sparsity

    @torch.no_grad()
    def restart(self, latents: torch.Tensor, directions: torch.Tensor, x: torch.Tensor) -> None:
        """Let `latents` begin anew, each active on as many of the tokens `x` as others are."""
        level = self.usual_level(directions, x)
        super().restart(latents, directions, x)
        self.b_enc[latents] = -level
