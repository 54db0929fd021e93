"""Words that a policy wrote while it was trained, so that tables know which of them it uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lfp.feedback.rewards.base import Reward
from lfp.texts.words import count_words


def counted(reward: Reward, written: Counter[str]) -> Reward:
    """The `reward`, which adds the words of every completion that it scores to `written`."""

    def scored(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        written.update(word for text in completions for word in count_words(text))
        return reward(prompts, completions)

    return scored
