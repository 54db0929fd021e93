"""Choice of features: the related ones, and the sets that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

#: Features by layer.
FeatureSet = Mapping[int, Sequence[int]]

#: Largest difference of two matched features' ranks in a trait, as a share of the layer's live
#: features.
DECILE = 0.1 + 1e-9


def explained_set(explanations: pd.DataFrame) -> dict[int, list[int]]:
    """The features that an explainer called related, by layer."""
    related = explanations[explanations["related"]]
    return {int(layer): group["feature"].tolist() for layer, group in related.groupby("layer")}


def top_set(
    explanations: pd.DataFrame, chosen: FeatureSet, rank: pd.Series
) -> dict[int, list[int]]:
    """The features of the highest `rank`, as many per layer as `chosen` has.

    `rank` is aligned with `explanations`.

    Features with a missing rank are left out.
    """
    ranked = (
        explanations.assign(rank=rank)
        .dropna(subset="rank")
        .sort_values("rank", ascending=False, kind="stable")
    )
    by_layer = dict(tuple(ranked.groupby("layer")))
    return {
        layer: sorted(by_layer[layer]["feature"].head(len(features)).tolist())
        for layer, features in chosen.items()
        if layer in by_layer
    }


def probe_weight_rank(explanations: pd.DataFrame, weight: np.ndarray) -> pd.Series:
    """Absolute weight of every live feature in the policy's probe.

    The features of the probe run by layer and feature.
    """
    order = explanations.sort_values(["layer", "feature"], kind="stable").index
    rank = pd.Series(np.abs(weight), index=order)
    return rank.where(explanations["frequency"] > 0)


def unrelated_match_rank(explanations: pd.DataFrame) -> pd.Series:
    """Match cosine of the explained features that are not related."""
    return explanations["cosine"].where((explanations["status"] == "ok") & ~explanations["related"])


def matched_random_set(
    explanations: pd.DataFrame,
    chosen: FeatureSet,
    rng: np.random.Generator,
    trait: str = "frequency",
    neighbours: int = 5,
) -> dict[int, list[int]]:
    """Features outside `chosen`, as many per layer, alike in a `trait` and in their contribution.

    Each chosen feature draws among the live, unchosen and not yet drawn features whose rank in the
    trait is within a tenth of the layer's live features of its own, one of the `neighbours` nearest
    by mean contribution (directions have unit norm, so that is the mean activation). Where none is
    left within a tenth, the nearest by rank is drawn: :func:`share_within_decile` gives the share
    of such draws. A layer with fewer candidates than chosen features gives all of them.

    Parameters
    ----------
    explanations
        A row per feature with its statistics.
    chosen
        Features by layer that are matched.
    rng
        The source of randomness.
    trait
        Column of `explanations` that the sets are matched on.
    neighbours
        Number of nearest features that one is drawn among.
    """
    result: dict[int, list[int]] = {}
    for layer, features in chosen.items():
        table = explanations[(explanations["layer"] == layer) & (explanations["frequency"] > 0)]
        names, rank = (
            table["feature"].to_numpy(),
            table[trait].rank(method="first", pct=True).to_numpy(),
        )
        contribution = np.log(table["mean_activation"].clip(lower=1e-12)).to_numpy()
        free = ~np.isin(names, features)
        drawn: list[int] = []
        for target in rng.permutation(np.flatnonzero(np.isin(names, features))):
            pool = np.flatnonzero(free)
            if not len(pool):
                break
            distance = np.abs(rank[pool] - rank[target])
            near = pool[distance <= DECILE]
            if len(near):
                alike = np.argsort(np.abs(contribution[near] - contribution[target]), kind="stable")
                pick = rng.choice(near[alike[:neighbours]])
            else:
                pick = pool[distance.argmin()]
            drawn.append(int(names[pick]))
            free[pick] = False
        result[int(layer)] = sorted(drawn)
    return result


def share_within_decile(
    explanations: pd.DataFrame, chosen: FeatureSet, drawn: FeatureSet, trait: str = "frequency"
) -> float:
    """Share of the `chosen` features with a partner in `drawn` within a tenth of the trait's ranks.

    Both sets are paired in order of the trait, which minimises the largest difference. NaN for
    empty sets.
    """
    within: list[bool] = []
    for layer, features in chosen.items():
        table = explanations[
            (explanations["layer"] == layer) & (explanations["frequency"] > 0)
        ].set_index("feature")
        rank = table[trait].rank(method="first", pct=True)
        ours = np.sort(rank[[feature for feature in features if feature in rank.index]])
        theirs = np.sort(rank[list(drawn.get(layer, ()))])
        within += [abs(a - b) <= DECILE for a, b in zip(ours, theirs, strict=False)]
        within += [False] * (len(ours) - len(theirs))
    return float(np.mean(within)) if within else float("nan")
