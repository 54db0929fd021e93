"""ITDA: a dictionary of tokens' own activations, and codes by pursuit (arXiv:2505.17769).

Nothing is trained by gradients: in one pass over the tokens, those join the dictionary that it does
not explain yet (:class:`lfp.sae.training.collector.Collector`). A token's code is found by gradient
pursuit (Blumensath and Davies 2008), whose coefficients are kept at 0 or above, as latents are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Autoencoder

#: Share of a token's square that may be left unexplained, where the settings give none.
TAU = 0.1


class ITDA(SparseAutoencoder):
    """Latents are the coefficients of at most k directions that a pursuit picks one by one.

    Parameters
    ----------
    d_in, d_sae, tied
        As of :class:`~lfp.sae.architectures.base.SparseAutoencoder`; there is no encoder to tie.
    k
        Steps of the pursuit, each of which may take one more direction in; at most one for each.
    tau
        A token joins the dictionary where |x - pursuit(x)|^2 exceeds so many times |x|^2.
    """

    architecture = "itda"
    options = ("k", "tau")
    penalties = ()
    per_latent: ClassVar[tuple[str, ...]] = ("decoder",)
    by_gradients = False
    encodes_apart = False

    def __init__(
        self, d_in: int, d_sae: int, tied: bool = True, k: int = 32, tau: float | None = None
    ) -> None:
        super().__init__(d_in, d_sae, tied=True)
        self.k, self.tau = min(k, d_sae), TAU if tau is None else tau

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`; whether one is active depends on all, so `columns` saves nothing."""
        latents = pursuit(x - self.b_dec, self.W_dec, self.k)
        return latents if columns is None else latents[..., columns]

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The squared error, which is measured and not minimised."""
        latents = self.encode(x)
        error = F.mse_loss(self.decode(latents), x)
        return error, error, latents.sum(1).mean()

    @torch.no_grad()
    def keep_first(self, count: int) -> None:
        """Keep the first `count` directions of the dictionary."""
        self.decoder = torch.nn.Parameter(self.decoder[:count].clone())
        self.b_enc = torch.nn.Parameter(self.b_enc[:count].clone())
        self.d_sae, self.k = count, min(self.k, count)

    def weights(self) -> dict[str, torch.Tensor]:
        """The directions, and what is taken off activations in front of the pursuit."""
        return {"W_dec": self.W_dec, "b_dec": self.b_dec}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the :meth:`weights` of a dictionary."""
        self.decoder.copy_(weights["W_dec"])
        self.b_dec.copy_(weights["b_dec"])

    @torch.no_grad()
    def shift(self, mean: torch.Tensor) -> None:
        """Take a subtraction of `mean` [d_in] from the activations into the bias."""
        self.b_dec += mean


@torch.no_grad()
def pursuit(x: torch.Tensor, directions: torch.Tensor, steps: int) -> torch.Tensor:
    """Coefficients [..., direction], 0 or above, of sums of few `directions` that are near `x`.

    A step takes the direction in that the residual points along most, and moves all coefficients
    that were taken in along the gradient of the squared error, as far as that error falls; what
    falls below 0 is set to 0. A token whose residual no direction points along is done.

    Parameters
    ----------
    x
        Activations [..., d_in].
    directions
        Unit vectors [direction, d_in].
    steps
        Directions of a token, at most.
    """
    flat = x.reshape(-1, x.shape[-1])
    code = flat.new_zeros(len(flat), len(directions))
    taken = torch.zeros_like(code)
    residual = flat
    for _ in range(steps):
        along = residual @ directions.T
        largest, best = along.max(1, keepdim=True)
        taken.scatter_(1, best, (largest > 0).to(taken).maximum(taken.gather(1, best)))
        gradient = along * taken
        moved = gradient @ directions
        length = torch.linalg.vecdot(moved, moved)
        rate = torch.linalg.vecdot(moved, residual) / length.clamp(min=1e-30)
        code = (code + rate[:, None] * gradient).clamp_(min=0)
        residual = flat - code @ directions
    return code.reshape(*x.shape[:-1], len(directions))
