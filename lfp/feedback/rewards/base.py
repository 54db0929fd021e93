"""The base class of rewards, and the reward of a task.

Planning a run reads descriptions, so no library of science is loaded here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lfp.feedback.rewards import REWARDS
from lfp.settings import PPO

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: A reward of text maps (prompts, completions) to one float per pair.
Reward = Callable[[Sequence[str], Sequence[str]], "np.ndarray"]


@dataclass(frozen=True)
class TrainingText:
    """A task's training split, and the number of occurrences of every lower-cased word in it."""

    frame: pd.DataFrame
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Scale:
    """Scale of a reward, and the device that it runs on.

    The sum of a lexicon is divided by ``divisor``; every reward of a task is clipped to [-``clip``,
    ``clip``]. ``reward_on`` names the scored text: ``full``, prefix and completion, or the
    ``completion`` alone. ``classifier`` is the directory of the classifier, where the reward is
    one, and ``device`` is its device.
    """

    divisor: float
    clip: float
    reward_on: str
    classifier: str | None = None
    device: str = "cpu"


class TaskReward(ABC):
    """One reward: the words that it is about, its score, and the truth that is planted in it.

    A subclass imports libraries of science inside its methods, so that :meth:`description` can be
    read when a run is planned.

    Parameters
    ----------
    settings
        The task's settings: its entry in the configuration when a run is planned
        (``flipped_share``, ``trigger``, ``reward_seed``, ``callable`` and ``positive`` are keys of
        it), the content of its lexicon file when text is scored.
    """

    #: The questions of the table of planted truth that this reward answers
    #: (``lfp/tables/planted``); none where nothing is planted.
    questions: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def description(self) -> str:
        """A description of the reward, in words, for explainers.

        It is empty where only the task can say.
        """
        return ""

    def words(self, text: TrainingText) -> dict[str, float]:
        """The clean lexicon that probes are held against.

        It is VADER's unless a subclass has another: it stands in where a reward gives words no
        value.
        """
        from lfp.feedback.lexica import vader_lexicon

        return vader_lexicon()

    def rewarded(self, words: Mapping[str, float], text: TrainingText) -> Mapping[str, float]:
        """The lexicon that scores, made of the clean `words`.

        It is the same one unless a subclass plants something in it.
        """
        return words

    def truth(self, words: Mapping[str, float], text: TrainingText) -> dict[str, Any]:
        """The planted truth: the words with a flipped sign, and the trigger."""
        return {"flipped": [], "trigger": None}

    @abstractmethod
    def score(self, scale: Scale) -> Reward:
        """The function that scores texts; ``settings`` are the content of the lexicon file."""


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
