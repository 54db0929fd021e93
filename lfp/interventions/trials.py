"""The interventions of the stage: every selector's latents under every action, and random sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.interventions.ablation import Ablated, MatchedInterventions, Measure, ablate
from lfp.interventions.actions import PATCH, WITH_STRENGTH
from lfp.interventions.arms import matched_random
from lfp.interventions.completions import completion_rewards
from lfp.interventions.paired import Beside, Patched
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors import SELECTORS
from lfp.interventions.selectors.material import Material
from lfp.interventions.vocabulary import Intervention, set_features
from lfp.models.hooks import Edit
from lfp.settings import Ablation, Interventions

#: The intervention that changes nothing, and the untouched other model.
NOTHING, OTHER = "none", "other model"
#: Random sets of latents.
RANDOM = "random"


def under_actions(asked: Interventions) -> Iterator[tuple[str, float]]:
    """The actions of the settings with their strengths; NaN for those without one."""
    strengths = {"clamp": asked.clamps, "scale": asked.scales}
    for action in asked.actions:
        for strength in strengths[action] if action in WITH_STRENGTH else (nan,):
            yield action, strength


class Trials(MatchedInterventions):
    """Interventions on the latents that selectors choose, and random sets of equal damage.

    ``chosen`` are the latents by selector.

    Parameters
    ----------
    material
        What selectors choose from.
    damage
        Measures edits; random sets are cut so that theirs is that of their set.
    beside
        The other model, which the action ``patch`` reads.
    """

    def __init__(self, material: Material, damage: Measure, beside: Beside) -> None:
        super().__init__(material.autoencoders, material.explanations, damage, beside)
        self.chosen = {name: SELECTORS[name](material) for name in material.asked.selectors}
        with self.reading():
            self._select(material)

    def _select(self, material: Material) -> None:
        """Add every selector's latents under every action, and random sets of each."""
        nothing = Intervention(NOTHING, "", {}, {}, self.site)
        self._add([nothing], {}, material, 0)
        for name, features in self.chosen.items():
            arm = [
                self._of(name, action, strength, features)
                for action, strength in under_actions(material.asked)
            ]
            self._add(arm, {RANDOM: matched_random}, material, material.asked.draws)

    def _of(
        self, name: str, action: str, strength: float, features: FeatureSet, **of_draw: Any
    ) -> Intervention:
        edits = {
            layer: self._edit(layer, features[layer], action, strength)
            for layer in self.autoencoders
            if features.get(layer)
        }
        return Intervention(name, action, features, edits, self.site, strength, **of_draw)

    def _edit(self, layer: int, features: Sequence[int], action: str, strength: float) -> Edit:
        sae = self.autoencoders[layer]
        if action == PATCH:
            return Patched(self.beside, layer, sae, features)
        number = None if isnan(strength) else strength
        return set_features(sae, features, action, self.means[layer], number)

    def _like(
        self, arm: Intervention, name: str, features: FeatureSet, **of_draw: Any
    ) -> Intervention:
        return self._of(name, arm.action, arm.strength, features, **of_draw)


@dataclass(frozen=True)
class Writing:
    """How interventions are tried while a model writes.

    Parameters
    ----------
    tokenizer
        The tokenizer of both models.
    prompts, neutral
        Token ids of prompts, and of texts without feedback for the cross-entropy.
    reward
        Scores completions.
    settings
        New tokens and batch size.
    seed
        Seed of sampling: every intervention, every random set and the other model draw the same
        uniforms.
    """

    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Sequence[int]]
    neutral: Sequence[Sequence[int]]
    reward: Reward
    settings: Ablation
    seed: int


def tried(
    model: PreTrainedModel, trials: Trials, how: Writing, state_path: str | None = None
) -> Ablated:
    """Let a model write under every intervention, and the other model as it is.

    Parameters
    ----------
    model
        The model that is changed.
    trials
        Its interventions.
    how
        Prompts, texts, reward and seed.
    state_path
        A resume point for scored completions.
    """
    result = ablate(
        model, how.tokenizer, trials, how.prompts, how.neutral, how.reward,
        how.settings, how.seed, state_path,
    )  # fmt: skip
    [untouched] = completion_rewards(
        trials.beside.other, how.tokenizer, [{}], how.prompts, how.reward,
        new_tokens=how.settings.new_tokens, batch_size=how.settings.batch_size, seed=how.seed,
    )  # fmt: skip
    other = untouched.assign(**Intervention(OTHER, "", {}, {}, trials.site).labels())
    written = pd.concat([result.completions, other], ignore_index=True)
    return Ablated(written, result.neutral)
