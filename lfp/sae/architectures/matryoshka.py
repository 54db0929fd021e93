"""Matryoshka autoencoders: the first latents must do without the rest (arXiv:2503.17547).

In a wide dictionary a general latent leaves its special cases to latents of their own and has holes
there. Here prefixes of the latents reconstruct the activations, too, so that the first latents stay
general.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lfp.sae.architectures.batchtopk import BatchTopK

#: Nested prefixes where the settings give no number.
PREFIXES = 5


class Matryoshka(BatchTopK):
    """A :class:`~lfp.sae.architectures.batchtopk.BatchTopK` with an error for each prefix.

    Parameters
    ----------
    d_in, d_sae, tied, k
        As of :class:`~lfp.sae.architectures.batchtopk.BatchTopK`.
    prefixes
        Number of nested prefixes of the latents, of which each has half as many as the next; the
        last are all latents.
    """

    architecture = "matryoshka"
    options = ("k", "prefixes")

    def __init__(
        self, d_in: int, d_sae: int, tied: bool = True, k: int = 32, prefixes: int | None = None
    ) -> None:
        super().__init__(d_in, d_sae, tied, k)
        self.prefixes = PREFIXES if prefixes is None else prefixes

    def ends(self) -> list[int]:
        """Numbers of latents of the prefixes, ascending; fewer where there are few latents."""
        halved = {self.d_sae >> times for times in range(self.prefixes)}
        return sorted(halved - {0})

    def nested(
        self, latents: torch.Tensor, w_dec: torch.Tensor, x: torch.Tensor, error: torch.Tensor
    ) -> torch.Tensor:
        """The mean over prefixes of their squared errors; `error` is that of all `latents`."""
        output, first, errors = self.b_dec, 0, [error]
        for end in self.ends()[:-1]:
            output = output + latents[:, first:end] @ w_dec[first:end]
            errors.append(F.mse_loss(output, x))
            first = end
        return torch.stack(errors).mean()
