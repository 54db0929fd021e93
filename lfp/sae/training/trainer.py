"""One autoencoder in training."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch

from lfp.sae.architectures import rate_of
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.training.gradients import gradients_of
from lfp.sae.training.mutual import Pull
from lfp.sae.training.optimizer import Adam, Captured, can_capture
from lfp.settings import Autoencoder

log = logging.getLogger(__name__)

#: Steps between two looks at the latents that are active on a batch.
LOOK_EVERY = 5
#: Exponent of the correction of l1 at every look: l1 grows by (L0 / target)^GAIN, and by less where
#: the learning rate is lower, since the weights follow more slowly.
GAIN = 0.1
#: Relative distance from the target of L0 within which sparsity has settled.
SETTLED = 0.1
#: Rows of held-out activations that are encoded at once.
_ROWS = 2048


class Trainer:
    """An autoencoder's weights, Adam, its penalty, and the computation of its gradients.

    Parameters
    ----------
    sae
        The untrained autoencoder.
    name
        Its name in the log and in the curve.
    settings
        Architecture, loss and optimisation.
    tokens
        Tokens that training reads in all, at most.
    device, threads
        Device of the training, and threads of the sparse kernels on a CPU.
    """

    def __init__(
        self,
        sae: SparseAutoencoder,
        name: str,
        settings: Autoencoder,
        tokens: int,
        device: str,
        threads: int,
    ) -> None:
        self.sae, self.name, self.settings = sae.to(device), name, settings
        #: Whether l1 is found so that a target of L0 is met.
        self.controlled = "l1" in sae.penalties and settings.l1 is None
        first = 1.0 / sae.d_in if settings.l1 is None else settings.l1
        self.l1, self.penalty = (torch.tensor(float(first), device=device) for _ in range(2))
        self.gradients = gradients_of(self.sae, settings, self.penalty, tokens, threads)
        self.optimizer = Adam(self.sae.parameters(), rate_of(settings))
        captured = can_capture(device)
        self.compute = Captured(self._compute, settings.batch_size) if captured else self._compute
        #: What draws it to its partners, where it has some.
        self.pull: Pull | None = None
        #: Latents that have been active since dead ones were last looked for.
        self.alive = torch.zeros(sae.d_sae, dtype=torch.bool, device=device)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that training changes, by name."""
        moments = {
            "mean": self.optimizer.means,
            "square": self.optimizer.squares,
            "step": self.optimizer.steps,
        }
        named = {name: value.detach() for name, value in self.sae.named_parameters()}
        named |= dict(self.sae.named_buffers())
        named |= {"l1": self.l1, "alive": self.alive}
        if self.pull is not None:
            named["matched"] = self.pull.matched
        return named | {
            f"{kind}.{i}": value
            for kind, values in moments.items()
            for i, value in enumerate(values)
        }

    def step(self, x: torch.Tensor, number: int, rate: float, warmth: float) -> None:
        """Move the weights by one batch.

        Parameters
        ----------
        x
            Scaled activations [token, d_in].
        number
            The number of steps before this one.
        rate
            The learning rate.
        warmth
            The share of the penalty that the step has, which rises to 1.
        """
        if number % LOOK_EVERY == 0:
            self._look(x, warmth, rate / rate_of(self.settings))
        if self.pull is not None:
            self.pull.prepare(number)
        self.penalty.copy_(self.l1 * warmth)
        self.optimizer.learning_rate.fill_(rate)
        self.compute(x)

    @torch.no_grad()
    def _look(self, x: torch.Tensor, warmth: float, speed: float) -> None:
        """Note the latents that are active on a batch, and correct l1 by their number.

        `speed` is the share of the full learning rate that the step has.
        """
        active = self.gradients.active_tokens(x)
        self.alive |= active > 0
        density = active.sum() / (len(x) * self.sae.d_sae)
        self.gradients.look(density)
        if self.controlled and warmth == 1.0:
            ratio = density * self.sae.d_sae / self.settings.l0
            self.l1.mul_(ratio.clamp(0.1, 10.0) ** (GAIN * speed))

    def _compute(self, x: torch.Tensor) -> None:
        self.gradients(x)
        if self.pull is not None:
            self.pull.add()
        self.optimizer.step()

    def measured(self, held_out: torch.Tensor) -> dict[str, float]:
        """:func:`measured_losses` on scaled `held_out` activations [token, d_in].

        Dead are latents that were active neither there nor in training since the last search.
        """
        return measured_losses(self.sae, self.settings, self.l1, self.alive.clone(), held_out)

    def objective(self, row: dict[str, float]) -> float:
        """The number of :meth:`measured` that must become flat.

        It is the loss, and the error alone where the penalty is still being found.
        """
        return row["fvu"] if self.controlled else row["loss"]

    def settled(self, row: dict[str, float]) -> bool:
        """Whether the sparsity of :meth:`measured` is near its target, if there is one."""
        return not self.controlled or abs(math.log(max(row["l0"], 1e-9) / self.settings.l0)) < (
            SETTLED
        )

    @torch.no_grad()
    def resample(self, x: torch.Tensor, rng: np.random.Generator) -> int:
        """Let dead latents begin anew in the directions of what is not yet explained.

        A latent takes the error of a token of the batch `x` [token, d_in], which is drawn in
        proportion to its squared length, squared (Bricken et al. 2023, "Neuron Resampling").
        Returns the number of dead latents.
        """
        dead = (~self.alive).nonzero()[:, 0]
        self.alive.zero_()
        error = x - self.sae.decode(self.sae.encode(x))
        weights = error.pow(2).sum(1).double().cpu().numpy() ** 2
        # Two latents of one token would stay equal for ever: those without a token wait.
        dead = dead[: np.count_nonzero(weights)]
        if not len(dead):
            return 0
        chosen = rng.choice(len(x), size=len(dead), replace=False, p=weights / weights.sum())
        directions = torch.nn.functional.normalize(error[torch.from_numpy(chosen)], dim=1)
        self.sae.restart(dead, directions, x)
        for name in self.sae.per_latent:
            self.optimizer.forget(getattr(self.sae, name), (dead,))
        if self.sae.encoder is not None:
            self.optimizer.forget(self.sae.encoder, (slice(None), dead))
        log.info("%s: %d dead latents begin anew", self.name, len(dead))
        return len(dead)

    def counters(self) -> dict[str, Any]:
        """All that decides the course of later steps beside the tensors."""
        return self.gradients.counters

    def restore(self, counters: dict[str, Any]) -> None:
        """Go back to the :meth:`counters` of a resume point."""
        self.gradients.counters |= counters

    def finish(self) -> None:
        """Nothing is left to do behind the last step."""


@torch.no_grad()
def measured_losses(
    sae: SparseAutoencoder,
    settings: Autoencoder,
    l1: torch.Tensor,
    alive: torch.Tensor,
    held_out: torch.Tensor,
) -> dict[str, float]:
    """Losses on held-out activations, L0, and the share of dead latents.

    Parameters
    ----------
    sae, settings
        The autoencoder and the settings of its loss.
    l1
        The penalty, which stands among the numbers where the architecture has one.
    alive
        Latents that are not dead, whatever they do here; those that are active here join them.
    held_out
        Scaled activations [token, d_in].
    """
    totals = np.zeros(4)
    for x in held_out.split(_ROWS):
        loss, error, _ = sae.loss(x, settings, l1)
        active = sae.encode(x) > 0
        alive |= active.any(0)
        parts = (loss, error, active.sum(1).float().mean(), torch.ones(()))
        totals += len(x) * np.array([part.item() for part in parts])
    loss, error, l0 = totals[:3] / totals[3]
    variance = held_out.var(0, unbiased=False).mean().item()
    row = {
        "loss": loss, "fvu": error / variance if variance else 0.0, "l0": l0,
        "dead": 1 - alive.double().mean().item(), "l1": l1.item(),
    }  # fmt: skip
    if "l1" not in sae.penalties:
        del row["l1"]
    return row
