"""One rewarded word.

The question is whether explanations name it and whether its latents carry the reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.feedback.rewards.base import TrainingText
from lfp.feedback.rewards.vader import Vader

#: Valence of the rewarded word: a rare word must be worth a lot to be learned in few steps.
TRIGGER_VALENCE = 10.0


class Trigger(Vader):
    """Occurrences of the word ``trigger``; VADER's other words count nothing."""

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
