"""Actions: the values that take an ablated latent's place.

A new action is one more function and its line in :data:`ACTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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


ACTIONS: dict[str, Action] = {"zero": zero, "mean": mean, "negative": negative}
