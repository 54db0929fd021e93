"""Random sets of latents that change a model as much as another set does: matched on KL.

How much is measured on what the untouched model writes: the KL of the edited model's next token
from the untouched model's. Whoever compares a set that breaks the model with one that leaves it
alone compares damage, whatever the sets were chosen for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.interventions.arms import Latent
from lfp.interventions.completions import stacked, write
from lfp.interventions.selection import FeatureSet
from lfp.models.hooks import Edit
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Ablation

#: Prompts on whose completions the KL of a set is measured, at most.
PROMPTS = 32
#: Largest difference of a set's KL from the one that it is matched to, as a share of the latter, at
#: which the search ends, and the number of sizes that it tries before.
TOLERANCE, LOOKS = 0.15, 10


class Damage:
    """The KL of edited models from the untouched one, on what the latter writes.

    Parameters
    ----------
    model, tokenizer
        The model that is edited, and its tokenizer.
    autoencoders
        Autoencoders by layer, whose site edits change.
    prompts
        Token ids of prompts, of which the first :data:`PROMPTS` are read; without any, no edit does
        damage.
    settings
        New tokens and batch size.
    seed
        Seed of sampling.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        autoencoders: Mapping[int, SparseAutoencoder],
        prompts: Sequence[Sequence[int]],
        settings: Ablation,
        seed: int,
    ) -> None:
        self.model, self.site, self.written = model, site_of(autoencoders), None
        read = prompts[:PROMPTS]
        self.together = max(1, settings.batch_size // max(1, len(read)))
        if read:
            length = settings.new_tokens
            self.written = write(model, tokenizer, [{}], read, length, seed, self.site)

    def __call__(self, conditions: Sequence[Mapping[int, Edit]]) -> np.ndarray:
        """Mean KL [condition] of a completion under the edits of each condition, in nats."""
        if self.written is None:
            return np.zeros(len(conditions))
        nats = [np.zeros(0)]
        for start in range(0, len(conditions), self.together):
            part = conditions[start : start + self.together]
            texts = self.written.repeated(len(part))
            changed = texts.read_again(self.model, stacked(part), self.site)
            by_text = texts.divergence(self.model, changed, texts.states)
            nats.append(by_text.reshape(len(part), -1).mean(1))
        return np.concatenate(nats)


def by_layer(latents: Sequence[Latent]) -> dict[int, list[int]]:
    """Latents as a set of features by layer."""
    layers: dict[int, list[int]] = {}
    for layer, feature in sorted(latents):
        layers.setdefault(layer, []).append(feature)
    return layers


def matched_sets(
    orders: Sequence[Sequence[Latent]],
    sizes: Sequence[int],
    targets: Sequence[float],
    damage: Callable[[Sequence[FeatureSet]], np.ndarray],
) -> list[FeatureSet]:
    """A set of latents from each of `orders` whose damage is nearest to its target.

    Parameters
    ----------
    orders
        Latents in the order in which they are taken.
    sizes
        Number of latents of each that the search begins with.
    targets
        The damage that each is to do.
    damage
        Measures several sets of latents at once.
    """
    searches = [
        _Search(list(order), size, target)
        for order, size, target in zip(orders, sizes, targets, strict=True)
    ]
    for _ in range(LOOKS):
        going = [search for search in searches if search.size]
        if not going:
            break
        measured = damage([by_layer(search.order[: search.size]) for search in going])
        for search, value in zip(going, measured, strict=True):
            search.saw(float(value))
    return [search.nearest for search in searches]


class _Search:
    """The search for the number of latents of one order that do a target damage.

    The size moves between the largest number that is known to do too little and the smallest that
    does too much. Where one latent makes the difference between the two, it is left out.
    """

    def __init__(self, order: list[Latent], size: int, target: float) -> None:
        self.order, self.target = order, target
        self.size = min(size, len(order))
        self.below, self.above = (0, 0.0), (math.inf, math.inf)
        self.nearest: FeatureSet = by_layer(order[: self.size])
        self.distance, self.looks = math.inf, 0

    def saw(self, value: float) -> None:
        """Take in the damage of the current size, and choose the next one, 0 to end."""
        distance = abs(value - self.target)
        self.looks += 1
        if distance < self.distance:
            self.distance, self.nearest = distance, by_layer(self.order[: self.size])
        if self.distance <= TOLERANCE * self.target:
            self.size = 0
        elif value < self.target:
            self.below = (self.size, value)
            self.size = self._next()
        else:
            self.above = (self.size, value)
            if self.size - self.below[0] == 1:
                del self.order[self.size - 1]
                self.above = (math.inf, math.inf)
            self.size = self._next()

    def _next(self) -> int:
        (low, less), (high, more) = self.below, self.above
        if math.isinf(high):
            # Twice as many at most: few latents say little of how damage grows with their number.
            wanted = low * min(2.0, self.target / less) if less > 0 else max(2 * low, 1)
            return min(max(round(wanted), low + 1), len(self.order)) if low < len(self.order) else 0
        # By turns in proportion and in the middle, for damage is no straight line in the number.
        proportional = more > less and self.looks % 2
        share = (self.target - less) / (more - less) if proportional else 0.5
        return min(max(round(low + share * (high - low)), low + 1), int(high) - 1)
