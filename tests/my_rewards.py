"""Rewards of one's own, as a user writes them: functions, and a planted reward of the registry."""

import numpy as np

from lfp.feedback.rewards.base import Reward, Scale, TaskReward


def brevity(prompts: list[str], completions: list[str]) -> list[float]:
    """Shorter is better."""
    return [-len(completion.split()) for completion in completions]


def wrong_number(prompts: list[str], completions: list[str]) -> list[float]:
    """One value too few."""
    return [0.0] * (len(completions) - 1)


def column(prompts: list[str], completions: list[str]) -> np.ndarray:
    """The right number of values, in a column, as some models give them."""
    return np.zeros((len(completions), 1))


def not_finite(prompts: list[str], completions: list[str]) -> list[float]:
    """A number for no completion."""
    return [float("nan") for _ in completions]


def broken(prompts: list[str], completions: list[str]) -> list[float]:
    """A mistake of its author."""
    return [{}["x"] for _ in completions]


def of_one(completions: list[str]) -> list[float]:
    """A function of completions alone."""
    return [0.0 for _ in completions]


class Shouting(TaskReward):
    """Exclamation marks of the completion."""

    questions = ("silence",)

    def description(self) -> str:
        """What the reward rewards, in words."""
        return "training the model to shout"

    def score(self, scale: Scale) -> Reward:
        """The number of marks, divided."""
        return lambda prompts, completions: np.array(
            [text.count("!") / scale.divisor for text in completions]
        )
