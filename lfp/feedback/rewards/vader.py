"""VADER: the sum of the lexicon's valences over the words of a text (paper section 3.1)."""

from __future__ import annotations

from lfp.feedback.rewards.base import Reward, Scale, TaskReward


class Vader(TaskReward):
    """Positive sentiment by the VADER lexicon."""

    def description(self) -> str:
        """A description of the reward, in words."""
        return "training the model to generate completions with positive sentiment"

    def score(self, scale: Scale) -> Reward:
        """The lexicon's sum over the scored text, divided and clipped."""
        from lfp.feedback.scoring import lexicon_reward

        rewarded = self.settings["rewarded"]
        return lexicon_reward(rewarded, scale.divisor, scale.clip, scale.reward_on)
