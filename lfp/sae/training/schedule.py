"""The course of a training: warm-up, the end once nothing more is gained, and cooling down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lfp.sae.architectures import rate_of
from lfp.settings import Autoencoder


class Schedule:
    """Learning rate by step, and the last step.

    Parameters
    ----------
    settings
        Of the autoencoder: ``learning_rate``, ``warm_up_steps``, ``cool_down``, ``tolerance`` and
        ``patience``.
    steps
        The largest number of steps, which ``epochs`` gives.

    Notes
    -----
    The rate rises linearly, stays, and falls linearly to 0 over a share ``cool_down`` of all steps.
    It begins to fall where the held-out loss is flat: where the lowest loss of the last
    ``patience`` looks is not lower than (1 - ``tolerance``) times the lowest before them, for each
    of the autoencoders in training. Where it never is, the training ends at `steps`, and ``flat``
    stays false.
    """

    def __init__(self, settings: Autoencoder, steps: int) -> None:
        self.settings, self.steps, self.flat = settings, steps, False
        self.cooling_from = steps - round(settings.cool_down * steps)
        #: A short training must reach its learning rate, too.
        self.warm_up = min(settings.warm_up_steps, steps // 10)
        self.losses: list[list[float]] = []

    def warmth(self, step: int) -> float:
        """The share of the learning rate and of the penalty that `step` has by the warm-up."""
        return min(1.0, (step + 1) / (self.warm_up + 1))

    def learning_rate(self, step: int) -> float:
        """The learning rate of `step`."""
        left = (self.steps - step) / max(1, self.steps - self.cooling_from)
        return rate_of(self.settings) * min(self.warmth(step), left)

    def note(self, step: int, losses: Sequence[float], settled: bool = True) -> None:
        """Take in the held-out losses of all autoencoders before `step`.

        Losses count from the warm-up on, and only while sparsity has `settled` at its target: one
        that rises with the penalty is not flat.
        """
        tolerance, patience = self.settings.tolerance, self.settings.patience
        if tolerance is None or self.flat or step >= self.cooling_from:
            return
        self.losses = [*self.losses, list(losses)] if settled and step >= self.warm_up else []
        if len(self.losses) > patience and all(
            min(course[-patience:]) >= (1 - tolerance) * min(course[:-patience])
            for course in zip(*self.losses, strict=True)
        ):
            self.flat, self.cooling_from = True, step
            share = self.settings.cool_down
            self.steps = min(self.steps, math.ceil(step / (1 - share)))

    def state(self) -> dict[str, Any]:
        """All that has changed since the beginning, for a resume point."""
        return {
            "steps": self.steps, "cooling_from": self.cooling_from, "flat": self.flat,
            "losses": self.losses,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a :meth:`state`."""
        self.steps, self.cooling_from = state["steps"], state["cooling_from"]
        self.flat, self.losses = state["flat"], state["losses"]
