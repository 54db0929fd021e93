"""One vocabulary of interventions: what is changed at a site, how, how much, and at which tokens.

Arms of ablation, sets of latents under any action, and vectors that are added are all one
:class:`Intervention`. So they are written under, scored and compared by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lfp.interventions.actions import action_of
from lfp.interventions.selection import FeatureSet
from lfp.models.hooks import Edit
from lfp.sae.architectures.base import SparseAutoencoder

#: The value of :attr:`Intervention.where` of an intervention at every token.
EVERYWHERE = "all"


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of the activations of a site while a model reads or writes.

    Parameters
    ----------
    what
        Name of the selector or arm that chose the latents, or of the vector.
    action
        How it is changed: a name of :mod:`lfp.interventions.actions`, or ``add`` for a vector.
    features
        Latents by layer that are set; none for a vector.
    edits
        The change itself, by layer.
    site
        The part of the layers that is changed (:data:`lfp.sites.SITES`).
    strength
        How much: the number of the action, or the multiple of the vector; NaN where it has none.
    where
        The tokens that are changed: ``all``, or the name of a gate.
    matched_to
        The intervention that a random one is drawn for; empty for others.
    draw
        Number of the random draw.
    matched
        Share of a random set's latents that are within a decile of frequency of one of the set
        that it is drawn for; NaN for others.
    target
        The damage that a random one is to do, in nats of KL; NaN for others.
    """

    what: str
    action: str
    features: FeatureSet
    edits: Mapping[int, Edit]
    site: str
    strength: float = float("nan")
    where: str = EVERYWHERE
    matched_to: str = ""
    draw: int = 0
    matched: float = float("nan")
    target: float = float("nan")

    @property
    def size(self) -> int:
        """Number of latents that are set."""
        return sum(map(len, self.features.values()))

    def labels(self) -> dict[str, object]:
        """Columns that tell the intervention's rows from others."""
        return {
            "what": self.what,
            "action": self.action,
            "strength": self.strength,
            "where": self.where,
            "site": self.site,
            "layers": ",".join(map(str, sorted(self.edits))),
            "matched_to": self.matched_to,
            "draw": self.draw,
            "matched": self.matched,
            "features": self.size,
        }


def set_features(
    sae: SparseAutoencoder,
    features: Sequence[int],
    action: str = "zero",
    means: np.ndarray | None = None,
    strength: float | None = None,
) -> Edit:
    """An edit that sets some latents of an activation and keeps the autoencoder's error.

    Parameters
    ----------
    sae
        The autoencoder of the layer.
    features
        Numbers of the latents; without any, nothing is changed.
    action
        What takes the latents' place (:mod:`lfp.interventions.actions`); ValueError for a name that
        is none.
    means
        Mean latents [latent] over a corpus.
    strength
        The number of the action, where it has one.
    """
    index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)
    replacement = action_of(action, strength)
    kept = means[list(features)] if means is not None else np.zeros(len(index))
    kept = torch.as_tensor(kept, dtype=torch.float32, device=index.device)
    return setting_edit(sae, index, lambda latents: replacement(latents, kept))


def setting_edit(
    sae: SparseAutoencoder,
    index: torch.Tensor,
    values: Callable[[torch.Tensor], torch.Tensor | float],
) -> Edit:
    """An edit that puts `values` of some latents [..., latent] in their place.

    `index` [latent] are their numbers.
    """
    directions = sae.W_dec[index]

    def edit(x: torch.Tensor) -> torch.Tensor:
        if len(index) == 0:
            return x
        latents = sae.encode(x.float(), index)
        change = ((latents - values(latents)) @ directions).to(x.dtype)
        return sae.spliced(x, x - change)

    return edit
