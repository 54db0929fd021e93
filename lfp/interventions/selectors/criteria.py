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

#: Names of the criteria, and of those that are resampled: the least of several noisy numbers, which
#: minimality is, lies below the least true one, and so would its resamples.
CRITERIA = ("faithfulness", "completeness", "minimality", "self_repair")
RESAMPLED = ("faithfulness", "completeness", "self_repair")
#: Columns of the rows of sets.
COLUMNS = (
    "what", "effect", *CRITERIA,
    *(f"{name}_resampled" for name in RESAMPLED), "instances",
)  # fmt: skip
#: Resamples of the instances, of which the table of interventions makes intervals.
RESAMPLES = 1000


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
    return numbers_without(material, sets).mean(1)


def numbers_without(material: Material, sets: Sequence[FeatureSet]) -> np.ndarray:
    """The number [set, instance] of the model without each of the sets."""
    edits = [without(material, features) for features in sets]
    return material.metric.measured(material.model, edits, material.site)


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
        latents: of the effect's sign where the others make up for one), the values of
        :data:`RESAMPLED` on resampled instances, in a list each, and ``instances``. Empty sets, and
        models without an instance, have none.
    """
    rows, live = [], pairs_of(by_layer(list(material.live.itertuples(index=False, name=None))))
    for what, features in chosen.items():
        taken = pairs_of(features)
        if not taken or not material.metric.n:
            continue
        others = [latent for latent in live if latent not in set(taken)]
        singles = [by_layer([latent]) for latent in taken]
        but_one = [by_layer([other for other in taken if other != latent]) for latent in taken]
        values = numbers_without(
            material, [{}, features, by_layer(others), by_layer(live), *singles, *but_one]
        )
        n = material.metric.n
        rng = np.random.default_rng(material.seed)
        counts = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)])
        resampled = _of_set(counts @ values.T / n)
        rows.append({
            "what": what, "effect": values[1].mean() - values[0].mean(), "instances": n,
            **{name: float(of[0]) for name, of in resampled.items()},
            **{f"{name}_resampled": resampled[name][1:].tolist() for name in RESAMPLED},
        })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_set(means: np.ndarray) -> dict[str, np.ndarray]:
    """The criteria [sample] of a set from the means [sample, condition] of samples of instances.

    The conditions are the untouched model, those without the set, with it alone and without all,
    those without one latent each, and those without the set but one latent each.
    """
    (model, gone, alone, nothing), rest = means.T[:4], means.T[4:]
    singles, but_one = np.split(rest, 2)
    effect, whole = gone - model, model - nothing
    return {
        "faithfulness": _shares(alone - nothing, whole),
        "completeness": _shares(gone - nothing, whole),
        "minimality": _shares(np.abs(but_one - gone).min(0), np.abs(effect)),
        "self_repair": effect - (singles - model).sum(0),
    }


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Parts of wholes; NaN of wholes that are 0."""
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes != 0)
