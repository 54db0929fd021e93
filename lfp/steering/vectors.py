"""Vectors: what is added to a model's activations to make it do more of what feedback taught.

A new vector is one more function and its line in :data:`VECTORS`. No library of science is imported
here, so that planning a run reads the names. Lengths say nothing: whoever compares vectors scales
each to the same cost (:mod:`lfp.steering.strength`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lfp.change.account.vectors import Difference
    from lfp.steering.changes import Change
    from lfp.steering.targeted import EffectMap


@dataclass(frozen=True)
class Material:
    """What vectors of one layer are made of.

    Parameters
    ----------
    difference
        Base and policy at a site, with common texts and the number of random vectors.
    layer
        The layer.
    values
        Activations [token, width] of the base at tokens whose feedback is known.
    labels
        Whether each of these tokens has each attribute [token, attribute]. The first attribute is
        positive feedback of its text; those without it are of texts with negative feedback.
    directions
        Unit directions of the dictionary's decoder [latent, width].
    related
        By attribute, the latents that are related to it, the most related first, with the sign
        that each is to have.
    effects
        Gives the measured map of what steering does to latents.
    seed
        Seed of the classifier.
    signs
        By attribute, 1 where it is wanted and -1 where it is not.
    """

    difference: Difference
    layer: int
    values: torch.Tensor
    labels: torch.Tensor
    directions: torch.Tensor
    related: Sequence[Mapping[int, float]]
    effects: Callable[[], EffectMap]
    seed: int
    signs: Sequence[float] = (1.0,)

    @property
    def targets(self) -> dict[int, float]:
        """The latents of all attributes with their signs, without those of both signs."""
        signs: dict[int, set[float]] = {}
        for of_attribute in self.related:
            for latent, sign in of_attribute.items():
                signs.setdefault(latent, set()).add(sign)
        return {latent: of.pop() for latent, of in signs.items() if len(of) == 1}

    @cached_property
    def shifts(self) -> dict[str, torch.Tensor]:
        """Vectors [draw, width] of the change of activations by their kind.

        They are those of :attr:`lfp.change.account.vectors.Difference.directions`.
        """
        vectors = self.difference.vectors([self.layer])[self.layer].to(self.directions)
        names = [name for name, _ in self.difference.directions]
        return {
            kind: vectors[[i for i, name in enumerate(names) if name == kind]]
            for kind in dict.fromkeys(names)
        }


#: Makes changes of one layer, one for each draw; none where the material does not allow any.
Source = Callable[[Material], "list[Change]"]


def constant_changes(vectors: Sequence[torch.Tensor] | torch.Tensor) -> list[Change]:
    """Changes that are the same vector at every token; vectors of 0 are none."""
    from lfp.steering.changes import constant

    return [constant({0: vector})[0] for vector in vectors if vector.norm() > 0]


def mean_shift(material: Material) -> list[Change]:
    """The mean over common text of the policy's activations minus the base's."""
    return constant_changes(material.shifts["mean"])


def difference_of_means(material: Material) -> list[Change]:
    """The mean activation with an attribute minus that without it, all attributes added up."""
    total = 0.0
    for has, sign in zip(material.labels.T, material.signs, strict=True):
        if bool(has.all()) or not bool(has.any()):
            return []
        difference = material.values[has].mean(0) - material.values[~has].mean(0)
        total = total + sign * difference
    return constant_changes([total])


def decoder_row(material: Material) -> list[Change]:
    """The decoder's direction of the latent that is most related, with its sign.

    Those of several attributes are added up.
    """
    most = [next(iter(of.items())) for of in material.related if of]
    rows = [sign * material.directions[latent] for latent, sign in most]
    return constant_changes([sum(rows)] if rows else [])


def targeted(material: Material) -> list[Change]:
    """The vector whose measured effect is on the related latents (SAE-TS)."""
    from lfp.steering.targeted import targeted_vector

    if not material.targets:
        return []
    return constant_changes([targeted_vector(material.effects(), material.targets)])


def classifier_gradient(material: Material) -> list[Change]:
    """The gradient by token of a classifier of all attributes (K-Steering)."""
    from lfp.steering.gradient import fitted_classifier, gradient_change

    labels = material.labels
    if not len(labels) or bool((labels == labels[:1]).all(0).any()):
        return []
    classifier = fitted_classifier(material.values, labels, material.seed)
    towards, away = (
        [i for i, sign in enumerate(material.signs) if sign == of] for of in (1.0, -1.0)
    )
    return [gradient_change(classifier, towards, away)]


def random(material: Material) -> list[Change]:
    """Random directions."""
    return constant_changes(material.shifts["random"])


def covariance(material: Material) -> list[Change]:
    """Random directions of the covariance of the policy's activations minus the base's."""
    return constant_changes(material.shifts["covariance"])


#: Vectors by name. Those of :data:`NULLS` know nothing of feedback, and have several draws.
VECTORS: dict[str, Source] = {
    "mean_shift": mean_shift,
    "difference_of_means": difference_of_means,
    "decoder_row": decoder_row,
    "targeted": targeted,
    "classifier_gradient": classifier_gradient,
    "random": random,
    "covariance": covariance,
}
NULLS = ("random", "covariance")
#: Vectors that are to raise some latents and no others.
BY_LATENT = ("decoder_row", "targeted")
