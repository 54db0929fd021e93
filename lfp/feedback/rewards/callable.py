"""Any Python function as the reward."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lfp.feedback.rewards.base import Reward, Scale, TaskReward

if TYPE_CHECKING:
    import numpy as np


class OwnFunction(TaskReward):
    """The function ``callable`` of the user's own module."""

    def score(self, scale: Scale) -> Reward:
        """The function's values, clipped."""
        return callable_reward(self.settings["callable"], scale.clip)


def callable_reward(name: str, clip: float) -> Reward:
    """The clipped values of the function ``module:function`` of (prompts, completions).

    The function gives one number for each pair.

    Raises ValueError where there is no such function; the reward itself does where the function
    returns another number of values, or values that are not finite.
    """
    import numpy as np

    module, _, function = name.partition(":")
    try:
        call = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"tasks: the reward {name!r} cannot be imported from the working directory: {error}"
        ) from error

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        try:
            given = call(list(prompts), list(completions))
            values = np.asarray(given, dtype=np.float64)
        except Exception as error:  # of any kind: it is the user's code
            raise ValueError(
                f"the reward {name} failed with {type(error).__name__}: {error}; it is called with"
                f" two lists of {len(completions)} texts, prompts and completions, and must return"
                " a finite number for each completion"
            ) from error
        if values.shape != (len(completions),) or not np.isfinite(values).all():
            raise ValueError(
                f"the reward {name} must return a finite number for each of {len(completions)}"
                f" completions, in the shape ({len(completions)},); it returned"
                f" {int(np.isfinite(values).sum())} finite numbers in the shape {values.shape}"
            )
        return np.clip(values, -clip, clip)

    return reward
