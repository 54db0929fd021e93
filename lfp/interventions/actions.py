"""Actions: the values that take the place of a latent.

A new action is one more function and its line in :data:`ACTIONS`, or in :data:`WITH_STRENGTH` where
it has a number of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lfp.registry import nearest

if TYPE_CHECKING:
    import torch

#: From the latents [..., latent] of an activation and their means [latent] over a corpus to the
#: values that replace them.
Action = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor | float"]


def zero(latents: torch.Tensor, means: torch.Tensor) -> float:
    """0: the latent's contribution is taken away."""
    return 0.0


def mean(latents: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """The latent's mean over a corpus: only its variation is taken away."""
    return means


def negative(latents: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Minus the latent: its contribution is turned round."""
    return -latents


def clamp(strength: float) -> Action:
    """Minus a constant, the `strength`, where the latent is active, and 0 elsewhere.

    It is the action of SAE unlearning (Farrell et al. 2024), whose constant does not depend on how
    active the latent is, as :func:`negative` does.
    """

    def action(latents: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        return latents.masked_fill(latents > 0, -strength)

    return action


def scale(strength: float) -> Action:
    """`strength` times the latent: 1 leaves it as it is, and more amplifies it."""

    def action(latents: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        return strength * latents

    return action


#: Actions by name.
ACTIONS: dict[str, Action] = {"zero": zero, "mean": mean, "negative": negative}
#: Makers of actions from a strength, by name.
WITH_STRENGTH: dict[str, Callable[[float], Action]] = {"clamp": clamp, "scale": scale}
#: The action that puts the value of the other model's own latent at the same token in the place of
#: the latent: :func:`mean`, with these values for the means (:mod:`lfp.interventions.paired`).
PATCH = "patch"


def action_of(name: str, strength: float | None = None) -> Action:
    """The action `name`, with its `strength` where it has one.

    Raises ValueError for another name, and for a strength that is missing.
    """
    if name == PATCH:
        return mean
    if name in WITH_STRENGTH:
        if strength is None:
            raise ValueError(f"the action {name!r} needs a strength; give it a number")
        return WITH_STRENGTH[name](strength)
    if name not in ACTIONS:
        known = (*ACTIONS, *WITH_STRENGTH, PATCH)
        raise ValueError(f"action {name!r} is unknown; {nearest(name, known)}")
    return ACTIONS[name]
