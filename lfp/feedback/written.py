"""Words that a policy wrote while it was trained, so that tables know which of them it uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lfp.feedback.rewards.base import Reward
from lfp.texts.words import count_words


def counted(
    reward: Reward, written: Counter[str] | None, before: Mapping[str, int]
) -> tuple[Counter[str], Reward]:
    """The counts of words `written`, and the `reward` that adds those of what it scores to them.

    The counts begin with those from `before` a resume point.
    """
    counts = Counter() if written is None else written
    counts.update(before)

    def scored(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        counts.update(word for text in completions for word in count_words(text))
        return reward(prompts, completions)

    return counts, scored
