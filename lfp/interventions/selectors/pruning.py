"""Greedy backward pruning: as few latents as do what a set does."""

from __future__ import annotations

import numpy as np

from lfp.interventions.matching import by_layer
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.attribution import largest_effect
from lfp.interventions.selectors.criteria import pairs_of, without
from lfp.interventions.selectors.material import Material

#: Largest change of the effect of the set that a dropped latent may make, in standard errors of it.
ERRORS = 2.0


def pruned(material: Material) -> FeatureSet:
    """The set of the selector ``attribution`` without the latents that it does as well without.

    Latents are tried once each, those of the smallest effect first. One is dropped where the number
    of the model without the remaining set stays within two standard errors of what it is without
    the whole set; the standard error is that of the whole set's effect, paired by instance.
    """
    whole = largest_effect(material)
    effects = material.effects.set_index(["layer", "feature"])["exact"].abs()
    kept = sorted(pairs_of(whole), key=lambda latent: (effects[latent], latent))
    if not kept or material.metric.n < 2:
        return whole

    def numbers(latents: list[tuple[int, int]]) -> np.ndarray:
        edits = without(material, by_layer(latents))
        return material.metric.measured(material.model, [edits], material.site)[0]

    gone = numbers(kept)
    effect = gone - numbers([])
    tolerance = ERRORS * effect.std(ddof=1) / np.sqrt(len(effect))
    for latent in list(kept):
        fewer = [other for other in kept if other != latent]
        if abs((numbers(fewer) - gone).mean()) <= tolerance:
            kept = fewer
    return by_layer(kept)
