"""JumpReLU autoencoders: every latent learns its threshold (arXiv:2407.14435).

The loss is flat in a threshold almost everywhere, so its gradient is estimated from the
pre-activations in a band about it (a straight-through estimator). In place of the paper's weight of
L0 there is a target of L0.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from lfp.sae.architectures import rate_of
from lfp.sae.architectures.thresholded import Thresholded
from lfp.settings import Autoencoder

#: Thresholds at the beginning, for activations whose mean square is 1.
FIRST = 0.1
#: Width of the band about a threshold from which its gradient is estimated.
BANDWIDTH = 0.3
#: Weight of the squared distance of log L0 from its target. Of L0 itself, which begins far above,
#: the first gradients would be so large that Adam, which remembers their squares for a thousand
#: steps, hardly moved afterwards.
WEIGHT = 1.0
#: Active latents of a token that are added to L0 and its target, so that both have a logarithm.
FLOOR = 0.01
#: How far Adam moves a threshold in a step. Thresholds have a way of about 1 to go, whatever the
#: learning rate of the weights: at a common rate of 0.001 they never arrive.
RATE = 0.02


class Jump(torch.autograd.Function):
    """ReLU(z) and 1 where z exceeds its threshold, else 0, with estimated gradients."""

    @staticmethod
    def forward(
        ctx: Any, pre: torch.Tensor, threshold: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and activity [token, d_sae] of pre-activations [token, d_sae]."""
        ctx.save_for_backward(pre, threshold)
        active = pre > threshold.clamp(min=0)
        return pre * active, active.to(threshold)

    @staticmethod
    def backward(
        ctx: Any, by_latents: torch.Tensor, by_activity: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients by pre-activations and by thresholds (Eq. 11 and 12 of the paper)."""
        pre, threshold = ctx.saved_tensors
        height = threshold.clamp(min=0)  # of the jump
        in_band = ((pre - threshold).abs() < BANDWIDTH / 2).to(threshold) / BANDWIDTH
        by_threshold = -(in_band * (height * by_latents + by_activity)).sum(0)
        return by_latents * (pre > height), by_threshold


class JumpReLU(Thresholded):
    """Latents f = z where z > threshold, else 0, with z = x W_enc + b_enc and learned thresholds.

    Notes
    -----
    Adam moves a parameter by about the learning rate, however small its gradient. The unit of
    ``level`` makes that a way of :data:`RATE` for thresholds.
    """

    architecture = "jumprelu"
    opened_as = None
    penalties = ()
    per_latent = ("decoder", "b_enc", "level")
    bandwidth, floor, of_activity = BANDWIDTH, FLOOR, WEIGHT

    def __init__(self, d_in: int, d_sae: int, tied: bool = True) -> None:
        super().__init__(d_in, d_sae, tied)
        self.level = nn.Parameter(torch.full((d_sae,), FIRST))

    @classmethod
    def of_settings(cls, d_in: int, d_sae: int, settings: Autoencoder) -> Self:
        """An untrained autoencoder as a variant's `settings` describe it."""
        sae = super().of_settings(d_in, d_sae, settings)
        sae.unit = RATE / rate_of(settings)
        sae.level.data.fill_(FIRST / sae.unit)
        return sae

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Squared error plus the squared distance of log L0 from that of its target."""
        w_dec = self.W_dec
        pre = x @ (w_dec.T if self.encoder is None else self.encoder) + self.b_enc
        latents, active = Jump.apply(pre, self.level * self.unit)
        error = F.mse_loss(latents @ w_dec + self.b_dec, x)
        sparsity = active.sum(1).mean()
        distance = ((sparsity + FLOOR) / (settings.l0 + FLOOR)).log()
        return error + WEIGHT * distance**2, error, sparsity

    @torch.no_grad()
    def restart(self, latents: torch.Tensor, directions: torch.Tensor, x: torch.Tensor) -> None:
        """Let `latents` begin anew, each active on as many of the tokens `x` as others are."""
        bias = FIRST - self.usual_level(directions, x)
        super().restart(latents, directions, x)
        self.b_enc[latents], self.level[latents] = bias, FIRST / self.unit
