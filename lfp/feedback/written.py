"""Words of the completions that a reward scored in training: of no other did it say anything.

The policy writes them, or its base where completions are ranked.
"""

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
