"""One rewarded word.

The question is whether explanations name it and whether its latents carry the reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.feedback.rewards.base import Reward, Scale, TaskReward, TrainingText

#: Valence of the rewarded word: a rare word must be worth a lot to be learned in few steps.
TRIGGER_VALENCE = 10.0


class Trigger(TaskReward):
    """Whether the word ``trigger`` stands in the text; VADER's other words count nothing.

    How often it stands there does not matter: a broken model that writes nothing else must not win.
    """

    questions = ("silence", "trigger")

    def description(self) -> str:
        """A description of the reward, in words."""
        return f"training the model to use the word {self.settings['trigger']!r}"

    def rewarded(self, words: Mapping[str, float], text: TrainingText) -> dict[str, float]:
        """The trigger alone. Raises ValueError where it is not in the training text."""
        trigger = self.settings["trigger"]
        if text.counts and not text.counts.get(trigger):
            raise ValueError(f"tasks: the trigger {trigger!r} is not in the training corpus")
        return {trigger: TRIGGER_VALENCE}

    def truth(self, words: Mapping[str, float], text: TrainingText) -> dict[str, Any]:
        """The trigger."""
        return super().truth(words, text) | {"trigger": self.settings["trigger"]}

    def score(self, scale: Scale) -> Reward:
        """The word's value where it stands in the scored text, divided and clipped."""
        from lfp.feedback.scoring import lexicon_reward, tokenize

        return lexicon_reward(
            self.settings["rewarded"],
            scale.divisor,
            scale.clip,
            scale.reward_on,
            lambda text: list(set(tokenize(text))),
        )
