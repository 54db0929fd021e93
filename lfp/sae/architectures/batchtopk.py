"""BatchTopK autoencoders: a batch of n tokens keeps its k n largest latents (arXiv:2412.06410).

How many latents a token has is then up to the token. Behind the training a threshold stands for the
batch, so that a token's latents do not depend on its neighbours.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import PART
from lfp.sae.architectures.thresholded import Thresholded
from lfp.settings import Autoencoder

#: Weight of the auxiliary loss (arXiv:2412.06410; arXiv:2406.04093, appendix A.2).
AUXILIARY = 1 / 32
#: Batches without an active token after which a latent takes part in the auxiliary loss.
IDLE_BATCHES = 20


def _may_wait(x: torch.Tensor) -> bool:
    """Whether a step on the device of `x` may ask for a value: one that is recorded may not."""
    return x.device.type == "cpu"


class BatchTopK(Thresholded):
    """In training f = z where z is among the k n largest of a batch of n tokens, else 0.

    With z = ReLU(x W_enc + b_enc). Behind it, the z above one threshold for all latents.

    Parameters
    ----------
    d_in, d_sae, tied
        As of :class:`~lfp.sae.architectures.base.SparseAutoencoder`.
    k
        Active latents of a token, on average; all where there are fewer.

    Notes
    -----
    Latents that have been ``idle`` for :data:`IDLE_BATCHES` take part in an auxiliary loss: the
    d_in / 2 largest of them on a token reconstruct its error. The error is held fixed, so that this
    moves idle latents alone.
    """

    architecture = "batchtopk"
    options = ("k",)
    penalties = ()
    auxiliary, idle_batches = AUXILIARY, IDLE_BATCHES

    def __init__(self, d_in: int, d_sae: int, tied: bool = True, k: int = 32) -> None:
        super().__init__(d_in, d_sae, tied)
        self.k = min(k, d_sae)
        self.register_buffer("level", torch.zeros(d_sae))
        #: Batches since each latent was active.
        self.register_buffer("idle", torch.zeros(d_sae))

    def encode(self, x: torch.Tensor, columns: torch.Tensor | None = None) -> torch.Tensor:
        """Latents of `x`, in training those of `x` as one batch."""
        if not self.training:
            return super().encode(x, columns)
        latents = self._largest(F.relu(x @ self.W_enc + self.b_enc))
        return latents if columns is None else latents[..., columns]

    def _largest(self, latents: torch.Tensor) -> torch.Tensor:
        """The k n largest `latents` [..., d_sae] of n tokens; others are 0."""
        written = self.weighed(latents.detach())
        flat = written.flatten()
        kept = self.k * (len(flat) // self.d_sae)
        if not kept:
            return latents
        return latents * (written >= flat.topk(kept, sorted=False).values.min())

    def active_tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Number of the tokens of `x` on which each latent is active, in training as one batch."""
        kept = self.k * len(x)
        if not self.training or not kept:
            return super().active_tokens(x)
        level, counts = self._largest_written(x, kept)[-1], torch.zeros(self.d_sae, device=x.device)
        for part in x.split(PART):
            latents = F.relu(part @ self.W_enc + self.b_enc)
            counts += ((latents > 0) & (self.weighed(latents) >= level)).sum(0)
        return counts

    def _largest_written(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """So many of the largest that latents of `x` [token, d_in] write, descending; fewer where
        there are fewer.
        """
        largest = x.new_zeros(0)
        for part in x.split(PART):
            written = self.weighed(F.relu(part @ self.W_enc + self.b_enc)).flatten()
            largest = torch.cat([largest, written])
            largest = largest.topk(min(number, len(largest))).values
        return largest

    def loss(
        self, x: torch.Tensor, settings: Autoencoder, penalty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The squared error with the auxiliary loss; sparsity needs no penalty."""
        w_dec = self.W_dec
        pre = F.relu(x @ (w_dec.T if self.encoder is None else self.encoder) + self.b_enc)
        latents = self._largest(pre)
        output = latents @ w_dec + self.b_dec
        error = F.mse_loss(output, x)
        total = self.nested(latents, w_dec, x, error)
        if torch.is_grad_enabled():  # a look at held-out activations is no batch
            self.idle.add_(1).masked_fill_((latents.detach() > 0).any(0), 0)
            total = total + AUXILIARY * self._auxiliary(pre, w_dec, (x - output).detach())
        return total, error, latents.sum(1).mean()

    def nested(
        self, latents: torch.Tensor, w_dec: torch.Tensor, x: torch.Tensor, error: torch.Tensor
    ) -> torch.Tensor:
        """The error that is learned from, where `error` is that of all `latents` of `x`."""
        return error

    def _auxiliary(
        self, pre: torch.Tensor, w_dec: torch.Tensor, error: torch.Tensor
    ) -> torch.Tensor:
        """The squared error of idle latents, of `pre` [token, d_sae], as codes of the `error`."""
        idle = self.idle >= IDLE_BATCHES
        if _may_wait(pre) and not idle.any():
            return error.new_zeros(())
        largest = (pre * idle).topk(min(max(1, self.d_in // 2), self.d_sae), dim=-1)
        code = torch.zeros_like(pre).scatter(-1, largest.indices, largest.values)
        return F.mse_loss((code @ w_dec).to(error), error) * idle.any()

    @torch.no_grad()
    def calibrate(self, x: torch.Tensor) -> None:
        """Set the threshold that k latents of a token of `x` [token, d_in] exceed, on average."""
        kept = self.k * len(x)
        if not kept:
            return
        largest = self._largest_written(x, kept + 1)
        # Between the last that is kept and the next; where all are kept, below the last.
        ends = largest[kept - 1 :] if len(largest) > kept else torch.zeros(1)
        self.level.fill_(ends.double().mean().item())
        self.level /= self.weighed(torch.ones_like(self.level))

    @torch.no_grad()
    def restart(self, latents: torch.Tensor, directions: torch.Tensor, x: torch.Tensor) -> None:
        """Let the `latents` begin anew; none of them is idle."""
        super().restart(latents, directions, x)
        self.idle[latents] = 0
