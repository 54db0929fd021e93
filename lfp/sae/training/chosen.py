"""Gradients of architectures that choose few latents of a token, on a CPU.

The loss of TopK, BatchTopK and JumpReLU reads the latents that were chosen and no others. So behind
the encoder's product and the choice, all costs are in proportion to these: the reconstruction, the
signal that its error sends back, and the weights' gradients (:mod:`~lfp.sae.training.kernels`).
Automatic differentiation takes five products over all latents.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import PART, SparseAutoencoder
from lfp.sae.training import kernels
from lfp.sae.training.gradients import Autograd, Gradients, Sums, sparse_pays
from lfp.settings import Autoencoder


class OfChosen(Gradients):
    """The gradients of TopK's loss; they set the autoencoder's ``grad``.

    Parameters
    ----------
    sae, settings
        The autoencoder and the settings of its loss.
    penalty
        The weight of an L1 norm, which these losses do not have.
    threads
        Threads, each with a share of the tokens.
    """

    def __init__(
        self, sae: SparseAutoencoder, settings: Autoencoder, penalty: torch.Tensor, threads: int
    ) -> None:
        super().__init__(sae, penalty, threads=threads)
        self.automatic = Autograd(sae, settings, penalty)
        self.settings = settings
        self.counters = {"sparse": False}

    def look(self, density: torch.Tensor) -> None:
        """Choose the way of computing by the `density`, the share of latents that are active."""
        weights = self.sae.d_in * self.sae.d_sae
        self.counters["sparse"] = sparse_pays(self.listed(density.item()), weights)

    def listed(self, density: float) -> float:
        """The share of latents that the kernels look at where this one is active."""
        return density

    @torch.no_grad()
    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of `x` on which each latent is active, in the memory of a step."""
        pre, _, _ = self.encoded(x)
        self.keep(pre.numpy())
        # A sum of truth values holds them in eight bytes each.
        return sum((part > 0).sum(0) for part in pre.split(PART))

    def __call__(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in]."""
        if self.counters["sparse"]:
            self.sparse(x)
        else:
            self.automatic(x)

    @torch.no_grad()
    def sparse(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in] at a cost in proportion to active latents."""
        sae, (n, d) = self.sae, x.shape
        pre, w_dec, norms = self.encoded(x)
        self.note(self.keep(pre.numpy()))
        values, b_dec = pre.numpy(), sae.b_dec.detach().numpy()
        scalar = values.dtype.type
        nothing, scale = np.zeros(sae.d_sae, values.dtype), scalar(2 / (n * d))

        def part(tokens: slice, sums: Sums) -> None:
            kernels.gradients(
                values[tokens], nothing, x.numpy()[tokens], w_dec.numpy(), b_dec, scalar(0), scale,
                sums.decoder, sums.encoder, sums.b_enc, sums.b_dec,
            )  # fmt: skip

        self._summed(part, n, w_dec, norms)
        self.also(x, pre, w_dec)

    def encoded(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pre-activations [token, d_sae] of `x`, and the decoder's directions and their norms."""
        sae = self.sae
        norms = sae.decoder.norm(dim=1, keepdim=True)
        w_dec = sae.decoder / norms
        w_enc = w_dec.T if sae.encoder is None else sae.encoder
        code = self._buffer("code", len(x), sae.d_sae, x.dtype)
        return torch.addmm(sae.b_enc, x, w_enc, out=code), w_dec, norms

    def keep(self, pre: np.ndarray) -> np.ndarray | None:
        """Leave only the chosen ones in the pre-activations `pre` [token, d_sae].

        Returns whether each latent is among them, where :meth:`note` asks for it.
        """
        kernels.keep_largest(pre, self.sae.k)

    def note(self, active: np.ndarray | None) -> None:
        """Note the latents that are `active` on a batch which is learned from."""

    def also(self, x: torch.Tensor, pre: torch.Tensor, w_dec: torch.Tensor) -> None:
        """Add the gradients of further parts of the loss; there are none."""


class OfBatch(OfChosen):
    """The gradients of BatchTopK's loss."""

    def keep(self, pre: np.ndarray) -> np.ndarray:
        """Leave the largest of the batch in `pre`."""
        active = np.zeros(self.sae.d_sae, np.bool_)
        kernels.keep_from(pre, kernels.largest(pre, self.sae.k * len(pre)), active)
        return active

    def note(self, active: np.ndarray) -> None:
        """Count the batches since each latent was active."""
        self.sae.idle.add_(1).masked_fill_(torch.from_numpy(active), 0)

    def also(self, x: torch.Tensor, pre: torch.Tensor, w_dec: torch.Tensor) -> None:
        """Add the gradients of the idle latents' own loss, which reads no others."""
        sae = self.sae
        idle = (sae.idle >= sae.idle_batches).nonzero()[:, 0]
        if not len(idle):
            return
        error = x - torch.addmm(sae.b_dec, pre.clamp_(min=0), w_dec)
        of_idle = [sae.decoder[idle], sae.b_enc[idle]]
        if sae.encoder is not None:
            of_idle.append(sae.encoder[:, idle])
        with torch.enable_grad():
            decoder, bias, *encoder = (value.detach().requires_grad_() for value in of_idle)
            directions = F.normalize(decoder, dim=1)
            latents = F.relu(x @ (encoder[0] if encoder else directions.T) + bias)
            largest = latents.topk(min(max(1, sae.d_in // 2), len(idle)), dim=-1)
            code = torch.zeros_like(latents).scatter(-1, largest.indices, largest.values)
            loss = sae.auxiliary * F.mse_loss(code @ directions, error)
            by_decoder, by_bias, *by_encoder = torch.autograd.grad(loss, [decoder, bias, *encoder])
        sae.decoder.grad[idle] += by_decoder
        sae.b_enc.grad[idle] += by_bias
        for gradient in by_encoder:
            sae.encoder.grad[:, idle] += gradient


class OfThresholds(OfChosen):
    """The gradients of JumpReLU's loss, and the estimated ones of its thresholds."""

    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of `x` on which each latent is active."""
        return self.sae.active_tokens(x)

    def listed(self, density: float) -> float:
        """About as many latents are in the band about a threshold as are active."""
        return 2 * density

    @torch.no_grad()
    def sparse(self, x: torch.Tensor) -> None:
        """Gradients for `x` [token, d_in] at a cost in proportion to active latents."""
        sae, (n, d) = self.sae, x.shape
        latents, w_dec, norms = self.encoded(x)
        pre = latents.numpy()
        threshold = sae.level.detach() * sae.unit
        scalar, b_dec = pre.dtype.type, sae.b_dec.detach().numpy()
        scale, half, counts = scalar(2 / (n * d)), scalar(sae.bandwidth / 2), []

        def part(tokens: slice, sums: Sums) -> None:
            active = kernels.jump_gradients(
                pre[tokens], threshold.numpy(), x.numpy()[tokens], w_dec.numpy(), b_dec, scale,
                half, sums.decoder, sums.encoder, sums.b_enc, sums.b_dec, sums.in_band,
            )  # fmt: skip
            counts.append(active)

        in_band = self._summed(part, n, w_dec, norms)
        sparsity, floor = sum(counts) / n, sae.floor
        distance = math.log((sparsity + floor) / (self.settings.l0 + floor))
        by_activity = 2 * sae.of_activity * distance / (sparsity + floor) / n
        by_error, tokens = in_band
        by_threshold = -(threshold.clamp(min=0) * by_error + by_activity * tokens)
        sae.level.grad = by_threshold / sae.bandwidth * sae.unit


#: The computation of gradients of each architecture that has one here, by its name: a job of one
#: architecture stands on no other one's code.
CHOSEN = {"topk": OfChosen, "batchtopk": OfBatch, "jumprelu": OfThresholds}
