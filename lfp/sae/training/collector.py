"""A dictionary that is collected: tokens join it in one pass, and no gradient is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lfp.sae.architectures.itda import ITDA, pursuit
from lfp.sae.training.trainer import measured_losses
from lfp.settings import Autoencoder

#: Tokens that are coded at once. One that joins the dictionary may explain those behind it, which
#: are then coded again.
_TOKENS = 64


class Collector:
    """A dictionary of tokens, in the place of a :class:`~lfp.sae.training.trainer.Trainer`.

    A token joins where the pursuit with the dictionary so far leaves more than ``tau`` of its
    square, until the dictionary is full. Tokens come in the order of the batches, as if one by one;
    an autoencoder of another size or seed reads a batch in another order.

    Parameters
    ----------
    sae
        The dictionary, with room for as many directions as it may get.
    name
        Its name in the log and in the curve.
    settings
        Not read by it but by its loss.
    seed
        Seed of the order of a batch's tokens.
    device
        Device of the pass.
    """

    def __init__(self, sae: ITDA, name: str, settings: Autoencoder, seed: int, device: str) -> None:
        self.sae, self.name, self.settings = sae.to(device).requires_grad_(False), name, settings
        self.seed, self.count = seed, 0
        self.l1 = torch.zeros((), device=device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that the pass changes, by name."""
        return {"decoder": self.sae.decoder}

    def counters(self) -> dict[str, Any]:
        """The number of directions so far."""
        return {"count": self.count}

    def restore(self, counters: dict[str, Any]) -> None:
        """Go back to the :meth:`counters` of a resume point."""
        self.count = counters["count"]

    @torch.no_grad()
    def step(self, x: torch.Tensor, number: int, rate: float, warmth: float) -> None:
        """Let the tokens of one batch join that the dictionary does not explain.

        Parameters
        ----------
        x
            Scaled activations [token, d_in].
        number
            The number of batches before this one.
        rate, warmth
            Of the learning rate and the penalty of a training; there is neither here.
        """
        order = np.random.default_rng((self.seed, number)).permutation(len(x))
        for part in x[torch.from_numpy(order).to(x.device)].split(_TOKENS):
            while len(part) and self.count < self.sae.d_sae:
                part = self._join(part)

    def _join(self, x: torch.Tensor) -> torch.Tensor:
        """Let the first token of `x` join that is not explained; returns those behind it."""
        known = self.sae.decoder[: self.count]
        left = x - pursuit(x, known, self.sae.k) @ known if self.count else x
        square = x.pow(2).sum(1)
        missing = (left.pow(2).sum(1) > self.sae.tau * square).nonzero()
        if not len(missing):
            return x[:0]
        first = int(missing[0])
        self.sae.decoder[self.count] = x[first] / square[first].sqrt()
        self.count += 1
        return x[first + 1 :]

    def finish(self) -> None:
        """Drop the room that no token has taken; one direction stays where none has joined."""
        self.sae.keep_first(max(1, self.count))

    def measured(self, held_out: torch.Tensor) -> dict[str, float]:
        """The losses on scaled `held_out` activations [token, d_in] with the directions so far."""
        used = ITDA(self.sae.d_in, max(1, self.count), k=self.sae.k).to(held_out.device)
        used.set_weights({"W_dec": self.sae.decoder[: used.d_sae], "b_dec": self.sae.b_dec})
        alive = torch.zeros(used.d_sae, dtype=torch.bool, device=held_out.device)
        return measured_losses(used, self.settings, self.l1, alive, held_out)

    def objective(self, row: dict[str, float]) -> float:
        """The number of :meth:`measured` that tells how far the pass is."""
        return row["loss"]

    def settled(self, row: dict[str, float]) -> bool:
        """Never: the pass does not end before the last token, however flat the loss is."""
        return False

    def resample(self, x: torch.Tensor, rng: np.random.Generator) -> int:
        """No direction begins anew: each is a token's."""
        return 0
