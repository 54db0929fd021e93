"""Length: a reward that no word's meaning enters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lfp.feedback.rewards.base import Reward, Scale, TaskReward

if TYPE_CHECKING:
    import numpy as np


class Length(TaskReward):
    """Number of words of the completion."""

    questions = ("silence",)

    def description(self) -> str:
        """A description of the reward, in words."""
        return "training the model to generate completions with many words"

    def score(self, scale: Scale) -> Reward:
        """The number of words, divided and clipped."""
        return length_reward(scale.divisor, scale.clip)


def length_reward(divisor: float = 5.0, clip: float = 10.0) -> Reward:
    """Number of words of the completion over `divisor`, at most `clip`."""
    import numpy as np

    from lfp.texts.words import count_words

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        lengths = np.array(
            [len(count_words(completion)) for completion in completions], dtype=np.float64
        )
        return np.minimum(lengths / divisor, clip)

    return reward
