"""Noise: a reward from which nothing can be learned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lfp.feedback.rewards.base import Reward, Scale, TaskReward

if TYPE_CHECKING:
    import numpy as np

#: Standard deviation of the noise before its division: about that of a sum of a lexicon over a
#: completion.
NOISE = 2.0


class Noise(TaskReward):
    """A normal number that depends on nothing but the text's digest."""

    questions = ("silence",)

    def description(self) -> str:
        """A description of the reward, in words."""
        return "a reward that does not depend on what the text says"

    def score(self, scale: Scale) -> Reward:
        """The number drawn from the completion's digest, divided."""
        return noise_reward(self.settings["reward_seed"], scale.divisor)


def noise_reward(seed: int, divisor: float = 5.0) -> Reward:
    """A normal number drawn from the completion's digest.

    Its standard deviation is :data:`NOISE` over `divisor`.

    The same text always scores the same, and nothing can be learned from it.
    """
    import numpy as np

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        digests = [hashlib.sha256(f"{seed}/{text}".encode()).digest()[:8] for text in completions]
        draws = [
            np.random.default_rng(int.from_bytes(digest, "big")).normal() for digest in digests
        ]
        return np.array(draws) * NOISE / divisor

    return reward
