"""Rewards by name.

Each has a file with its words, its score, its description and its planted truth.

Nothing is loaded before a reward is asked for, and its description loads no library of science.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfp.feedback.rewards.base import Reward, Scale
from lfp.registry import Registry
from lfp.settings import PPO

#: The kind of feedback of tasks that learn from pairs; no task can name it as its reward.
PREFERENCE = "preference"
REWARDS = Registry(
    "reward",
    {
        "vader": "lfp.feedback.rewards.vader:Vader",
        "vader_flipped": "lfp.feedback.rewards.vader_flipped:VaderFlipped",
        "length": "lfp.feedback.rewards.length:Length",
        "trigger": "lfp.feedback.rewards.trigger:Trigger",
        "noise": "lfp.feedback.rewards.noise:Noise",
        "classifier": "lfp.feedback.rewards.classifier:Classifier",
        "callable": "lfp.feedback.rewards.callable:OwnFunction",
        PREFERENCE: "lfp.feedback.rewards.preference:Preference",
    },
)
#: The rewards that a task may name.
TASK_REWARDS = tuple(name for name in REWARDS if name != PREFERENCE)


def description(entry: Mapping[str, Any]) -> str:
    """A description, in words, of the reward of a task's `entry` in the configuration.

    It is empty where only the task's own ``description`` can say.
    """
    return REWARDS[entry["reward"]](entry).description()


def scale_of(settings: PPO) -> dict[str, Any]:
    """Divisor, clip and scored text of the reward, as :func:`task_reward` takes them."""
    return {
        "divisor": settings.reward_divisor,
        "clip": settings.reward_clip,
        "reward_on": settings.reward_on,
    }


def task_reward(
    feedback: Mapping[str, Any],
    divisor: float,
    clip: float,
    reward_on: str,
    classifier: Sequence[str] = (),
    device: str = "cpu",
) -> Reward:
    """The reward of a task from its lexicon file.

    A preference is scored by the fitted log-odds of the completion.

    Parameters
    ----------
    feedback
        Content of the lexicon file; ``kind`` names the reward.
    divisor, clip
        The sum of a lexicon is divided by `divisor`; rewards are clipped to [-`clip`, `clip`].
    reward_on
        The scored text: ``full``, prefix and completion, or the ``completion`` alone.
    classifier
        Directory of the classifier where that is the reward, else nothing.
    device
        Device of the classifier.

    Raises
    ------
    ValueError
        If the file's kind is no reward, or `reward_on` is neither of the two.
    """
    scale = Scale(divisor, clip, reward_on, classifier[0] if classifier else None, device)
    return REWARDS[feedback["kind"]](feedback).score(scale)
