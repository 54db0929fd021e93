"""What selectors choose from: the model, its dictionaries and the texts that effects are read on.

What several selectors need is measured once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.interventions.arms import Candidates
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.metrics import Metric
from lfp.models.hooks import site_activations
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Interventions

if TYPE_CHECKING:
    from lfp.interventions.selectors.factorisation import Interactions


@dataclass(frozen=True, kw_only=True)
class Material(Candidates):
    """The candidates of a selector with the model that they are latents of.

    Parameters
    ----------
    model
        The model that is changed.
    autoencoders
        Autoencoders by layer.
    metric
        The number that latents are held to account for.
    asked
        Settings of the selectors.
    directions
        Directions by layer [width] that the selector ``direction`` holds decoder rows against.
    neutral, rewarded
        Token ids of texts without feedback, and of texts that are full of it.
    front
        Tokens in front of a text that the tokenizer adds, on which no latent counts.
    seed
        Seed of what is drawn.
    """

    model: PreTrainedModel
    autoencoders: dict[int, SparseAutoencoder]
    metric: Metric
    asked: Interventions
    directions: dict[int, torch.Tensor] = field(default_factory=dict)
    neutral: Sequence[Sequence[int]] = ()
    rewarded: Sequence[Sequence[int]] = ()
    front: int = 0
    seed: int = 0

    @property
    def site(self) -> str:
        """The part of the layers that the dictionaries read."""
        return site_of(self.autoencoders)

    @cached_property
    def live(self) -> pd.DataFrame:
        """``layer`` and ``feature`` of the latents that are active at all."""
        live = self.explanations[self.explanations["frequency"] > 0]
        return live[["layer", "feature"]].reset_index(drop=True)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Attributions and exact effects, a row per latent of ``live``.

        See :func:`lfp.interventions.selectors.attribution.effects`.
        """
        from lfp.interventions.selectors.attribution import effects

        return effects(self)

    @cached_property
    def interactions(self) -> Interactions:
        """Random sets of latents, and the machine that has learned from them."""
        from lfp.interventions.selectors.factorisation import interactions

        return interactions(self)

    def top(self, rank: pd.Series, most: int | None = None) -> FeatureSet:
        """The latents of the highest `rank` [latent of ``live``] of all layers together.

        There are `most` of them, or as many as the settings ask for; those without a rank are left
        out.
        """
        ranked = self.live.assign(rank=rank).dropna(subset="rank")
        ranked = ranked.sort_values("rank", ascending=False, kind="stable")
        chosen = ranked.head(self.asked.latents if most is None else most)
        return {
            int(layer): sorted(group["feature"].tolist())
            for layer, group in chosen.groupby("layer")
        }

    def frequencies(self, sequences: Sequence[Sequence[int]]) -> np.ndarray:
        """The share of the tokens of texts that each latent of ``live`` is active on.

        Those that the tokenizer adds in front are left out: no dictionary has learned from them.
        """
        layers, active, tokens = list(self.autoencoders), {}, 0
        read = site_activations(
            self.model, sequences, layers, self.metric.pad, self.metric.batch_size, site=self.site
        )
        for _, mask, values in read:
            mask[:, : self.front] = False
            tokens += int(mask.sum())
            for layer, sae in self.autoencoders.items():
                on = (sae.latents(values[layer][mask].float()) > 0).sum(0).cpu().numpy()
                active[layer] = active.get(layer, 0) + on
        pairs = zip(self.live["layer"], self.live["feature"], strict=True)
        return np.array([active[layer][feature] / tokens if tokens else 0.0
                         for layer, feature in pairs])  # fmt: skip
