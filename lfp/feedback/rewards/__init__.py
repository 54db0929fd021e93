"""Rewards by name.

Each has a file with its words, its score, its description and its planted truth.

Nothing is loaded before a reward is asked for, and its description loads no library of science.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.registry import Registry

#: The kind of feedback of tasks that learn from pairs; no task can name it as its reward.
PREFERENCE = "preference"
REWARDS = Registry(
    "reward",
    {
        "vader": "lfp.feedback.rewards.vader:Vader",
        "vader_flipped": "lfp.feedback.rewards.vader_flipped:VaderFlipped",
        "length": "lfp.feedback.rewards.length:Length",
        "trigger": "lfp.feedback.rewards.trigger:Trigger",
        "opener": "lfp.feedback.rewards.opener:Opener",
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


def questions(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The questions of the table of planted truth that the reward of a task's `entry` answers."""
    return REWARDS[entry["reward"]].questions
