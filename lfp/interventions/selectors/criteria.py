"""Criteria of a set of latents as an account of a number of the model.

With m(M) the number of the untouched model, m(0) that without all latents, m(S) that with the set
alone and m(M - S) that without it, all latents being set to 0 where they are taken away: *faithful*
is a set that does what all do, (m(S) - m(0)) / (m(M) - m(0)) near 1 (Marks et al. 2024);
*complete* is one without which nothing is left, the same of m(M - S) near 0; *minimal* is one each
of whose latents adds something to what the others take away (Wang et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lfp.interventions.matching import by_layer
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.material import Material
from lfp.interventions.vocabulary import set_features
from lfp.models.hooks import Edit

#: Columns of the rows of sets.
COLUMNS = (
    "what", "effect", "faithfulness", "completeness", "minimality", "self_repair", "instances",
)  # fmt: skip


def without(material: Material, features: FeatureSet) -> dict[int, Edit]:
    """The edits by layer that take latents away."""
    return {
        layer: set_features(sae, features[layer])
        for layer, sae in material.autoencoders.items()
        if features.get(layer)
    }


def measured_without(material: Material, sets: Sequence[FeatureSet]) -> np.ndarray:
    """The number [set] of the model without each of the sets, in the mean over instances.

    It is 0 where there is no instance.
    """
    if not material.metric.n:
        return np.zeros(len(sets))
    edits = [without(material, features) for features in sets]
    return material.metric.measured(material.model, edits, material.site).mean(1)


def pairs_of(features: FeatureSet) -> list[tuple[int, int]]:
    """The latents of a set as (layer, number)."""
    return [(layer, feature) for layer in sorted(features) for feature in features[layer]]


def criteria(material: Material, chosen: Mapping[str, FeatureSet]) -> pd.DataFrame:
    """The criteria of every set.

    Parameters
    ----------
    material
        The model, its latents and the number that sets account for.
    chosen
        Latents by layer, by the name of their selector.

    Returns
    -------
    pandas.DataFrame
        A row per set: ``what``, ``effect`` (of taking it away, in units of the number),
        ``faithfulness``, ``completeness``, ``minimality`` (the smallest share of the effect that is
        lost when one latent stays), ``self_repair`` (the effect minus the sum of those of single
        latents: of the effect's sign where the others make up for one) and ``instances``. Empty
        sets, and models without an instance, have none.
    """
    rows, live = [], pairs_of(by_layer(list(material.live.itertuples(index=False, name=None))))
    for what, features in chosen.items():
        taken = pairs_of(features)
        if not taken or not material.metric.n:
            continue
        others = [latent for latent in live if latent not in set(taken)]
        singles = [by_layer([latent]) for latent in taken]
        but_one = [by_layer([other for other in taken if other != latent]) for latent in taken]
        values = measured_without(
            material, [{}, features, by_layer(others), by_layer(live), *singles, *but_one]
        )
        (model, gone, alone, nothing), rest = values[:4], values[4:]
        of_single, without_one = rest[: len(taken)] - model, rest[len(taken) :]
        effect, whole = gone - model, model - nothing
        rows.append({
            "what": what, "effect": effect, "faithfulness": _share(alone - nothing, whole),
            "completeness": _share(gone - nothing, whole),
            "minimality": _share(np.abs(without_one - gone).min(), abs(effect)),
            "self_repair": effect - of_single.sum(), "instances": material.metric.n,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _share(part: float, whole: float) -> float:
    """A part of a whole; NaN of a whole that is 0."""
    return float(part / whole) if whole else float("nan")
