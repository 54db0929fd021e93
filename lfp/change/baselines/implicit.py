"""The implied reward: what a policy would be the best answer to, in units of its reward.

The policy that is best under a reward r with a penalty of β reward per nat has
r(x) = β log π(x)/p_0(x), up to a number that is one for all texts of a prompt (Rafailov et al.
2023). So β times the log-ratio of a word or an answer is the reward that fine-tuning says it has.
A policy that has not come to rest implies less, or another one, than it was paid.
"""

from __future__ import annotations

import pandas as pd

#: The readout's name, and that of its one part.
READOUT, PART = "implicit", "reward"


def reward_per_nat(asked: float | None, curve: pd.DataFrame) -> float | None:
    """The reward that a nat of log-ratio stands for; None where nobody knows.

    Parameters
    ----------
    asked
        The weight of the KL to the base that the configuration has: β of DPO, RLOO and GRPO; None
        for PPO, whose coefficient adapts, and for policies that were given without one.
    curve
        The training curve, whose last ``kl_coef`` is that of PPO.
    """
    if asked is None and "kl_coef" in curve and len(curve):
        asked = float(curve.sort_values("step")["kl_coef"].iloc[-1])
    return asked or None


def implied_rewards(choice: pd.DataFrame, per_nat: float | None) -> pd.DataFrame:
    """Readings of the implied reward from those at the choice.

    A word's is less the mean over all words, one without feedback as well as others.

    Parameters
    ----------
    choice
        Readings at the choice of one policy, as :func:`lfp.change.choice.word_shares` and
        :func:`~lfp.change.choice.answer_shares` have them, with ``kind``.
    per_nat
        Reward per nat of log-ratio; None gives no reading.

    Returns
    -------
    pandas.DataFrame
        The rows of the whole log-ratio with ``part``, and ``value`` and ``error`` in units of the
        reward.
    """
    if per_nat is None:
        return choice.iloc[:0]
    whole = choice[choice["part"] == "log_ratio"].copy()
    words = whole["kind"] == "word"
    whole.loc[words, "value"] -= whole.loc[words, "value"].mean()
    scaled = {name: per_nat * whole[name] for name in ("value", "error") if name in whole}
    return whole.assign(part=PART, **scaled)
