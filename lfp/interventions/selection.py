"""Choice of features: the related ones, and the sets that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

#: Features by layer.
FeatureSet = Mapping[int, Sequence[int]]

#: Largest difference of two matched features' ranks in a trait, as a share of the layer's live
#: features.
DECILE = 0.1 + 1e-9
#: Number of features of the nearest contribution that one is drawn among.
NEIGHBOURS = 5


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


class _Layer:
    """The live features of a layer, of which those outside `chosen` and `spared` are drawn once.

    A trait counts by its ranks, as shares of the features. Directions have unit norm, so that the
    mean activation is the mean contribution.
    """

    def __init__(
        self,
        explanations: pd.DataFrame,
        layer: int,
        chosen: Sequence[int],
        trait: str,
        spared: Sequence[int] = (),
    ) -> None:
        # Drawing takes from `free`: another set begins with `refill`.
        table = explanations[(explanations["layer"] == layer) & (explanations["frequency"] > 0)]
        self.names = table["feature"].to_numpy()
        self.rank = table[trait].rank(method="first", pct=True).to_numpy()
        self.contribution = np.log(table["mean_activation"].clip(lower=1e-12)).to_numpy()
        self.chosen = np.flatnonzero(np.isin(self.names, chosen))
        self._candidates = ~np.isin(self.names, [*chosen, *spared])
        self.refill()

    def refill(self) -> None:
        """Let all candidates be drawn again."""
        self.free = self._candidates.copy()

    def draw(self, rng: np.random.Generator, neighbours: int) -> list[int]:
        """A feature for each chosen one, as long as there are free ones."""
        drawn: list[int] = []
        for target in rng.permutation(self.chosen):
            pool = np.flatnonzero(self.free)
            if not len(pool):
                break
            distance = np.abs(self.rank[pool] - self.rank[target])
            near = pool[distance <= DECILE]
            if len(near):
                difference = np.abs(self.contribution[near] - self.contribution[target])
                alike = np.argsort(difference, kind="stable")
                pick = rng.choice(near[alike[:neighbours]])
            else:
                pick = pool[distance.argmin()]
            drawn.append(int(self.names[pick]))
            self.free[pick] = False
        return drawn


def matched_random_sets(
    explanations: pd.DataFrame,
    chosen: FeatureSet,
    rng: np.random.Generator,
    trait: str = "frequency",
    draws: int = 1,
) -> Iterator[dict[int, list[int]]]:
    """Sets of features outside `chosen`, as many per layer, alike in a `trait` and in contribution.

    Each chosen feature draws among the live, unchosen and not yet drawn features whose rank in the
    trait is within a tenth of the layer's live features of its own, one of the :data:`NEIGHBOURS`
    nearest by mean contribution (directions have unit norm, so that is the mean activation). Where
    none is left within a tenth, the nearest by rank is drawn: :func:`share_within_decile` gives the
    share of such draws. A layer with fewer candidates than chosen features gives all of them.

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
    draws
        Number of sets.
    """
    layers = {
        int(layer): _Layer(explanations, layer, features, trait)
        for layer, features in chosen.items()
    }
    for _ in range(draws):
        yield {n: sorted(layer.draw(rng, NEIGHBOURS)) for n, layer in layers.items()}
        for layer in layers.values():
            layer.refill()


def matched_order(
    explanations: pd.DataFrame,
    chosen: FeatureSet,
    rng: np.random.Generator,
    spared: FeatureSet | None = None,
) -> list[tuple[int, int]]:
    """All live features outside `chosen` and `spared`, those like the chosen ones first.

    They are given by layer and number.

    Behind a set as of :func:`matched_random_sets`, in random order, stands another one of what it
    has left, and so on, so that any first part of the order is a random set with the chosen
    features' traits, as long as there are such features. Layers without a chosen feature have none.
    """
    left_out = spared or {}
    layers = {
        int(n): _Layer(explanations, n, features, "frequency", left_out.get(n, ()))
        for n, features in chosen.items()
    }
    order: list[tuple[int, int]] = []
    while features := [
        (n, feature) for n, layer in layers.items() for feature in layer.draw(rng, NEIGHBOURS)
    ]:
        order += [features[i] for i in rng.permutation(len(features))]
    return order


def share_within_decile(
    explanations: pd.DataFrame, chosen: FeatureSet, drawn: FeatureSet, trait: str = "frequency"
) -> float:
    """Share of the `drawn` features that are within a tenth of the trait's ranks of a chosen one.

    NaN for empty sets.
    """
    within: list[bool] = []
    for layer, features in drawn.items():
        table = explanations[
            (explanations["layer"] == layer) & (explanations["frequency"] > 0)
        ].set_index("feature")
        rank = table[trait].rank(method="first", pct=True)
        ours = rank[rank.index.isin(chosen.get(layer, ()))].to_numpy()
        within += [bool((abs(ours - rank[feature]) <= DECILE).any()) for feature in features]
    return float(np.mean(within)) if within else float("nan")
