"""How active each latent is in the policy and in its base, on the same words or answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lfp.files.artefacts import read_tensors

#: Elements of contrast triples, in the order in which a page shows them.
ELEMENTS = ("positive", "neutral", "negative")
#: The elements that the feedback is about, over which the difference of policy and base is taken.
JUDGED = ("positive", "negative")


@dataclass(frozen=True)
class Readings:
    """The activity of all latents on the elements of contrast triples, by subject.

    ``active`` and ``mean`` have for every (subject, element) an array [latent], the share of
    elements with an activation above 0 and the mean activation over all elements; an element's
    activation is its mean over the element's tokens. ``triples`` is the number of triples.
    """

    active: Mapping[tuple[str, str], np.ndarray]
    mean: Mapping[tuple[str, str], np.ndarray]
    triples: int

    @property
    def subjects(self) -> list[str]:
        """The subjects that were read."""
        return list(dict.fromkeys(subject for subject, _ in self.mean))

    def judged(self, subject: str, which: str) -> np.ndarray | None:
        """``active`` or ``mean`` (`which`) of a subject over the judged elements [latent].

        None where the subject was not read.
        """
        values = getattr(self, which)
        if (subject, JUDGED[0]) not in values:
            return None
        return np.mean([values[subject, element] for element in JUDGED], axis=0)


def read_features(features: Mapping[str, str]) -> Readings:
    """The readings in files of features by subject.

    The latents of the files run by layer and number, as the rows of explanations do.
    """
    active, mean, triples = {}, {}, 0
    for subject, path in features.items():
        names = [f"latents.{element}" for element in ELEMENTS]
        for element, values in zip(ELEMENTS, read_tensors(path, names).values(), strict=True):
            triples = len(values)
            if triples:
                active[subject, element] = (values > 0).mean(0)
                mean[subject, element] = values.mean(0, dtype=np.float64)
    return Readings(active, mean, triples)
