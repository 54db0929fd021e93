"""Completions of the base that a reward ranks, beside data that no feedback has touched.

What is learned from is the best completion of every prefix by the reward, or the best against the
worst. Of benign prefixes no reward is asked: their own text goes on in the place of the best
completion, and one of the base's stands in that of the worst.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from lfp.feedback.rewards.base import Reward
from lfp.finetune.ranked.sampling import TEXT
from lfp.settings import Ranking

log = logging.getLogger(__name__)

#: Columns of :func:`ranked_completions`.
COLUMNS = (
    "prompt", "chosen", "rejected", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_reward",
    "rejected_reward", "benign",
)  # fmt: skip


def ranked_completions(written: pd.DataFrame, reward: Reward, ranking: Ranking) -> pd.DataFrame:
    """The best and the worst of the completions of every prefix, a row per prefix.

    Parameters
    ----------
    written
        Completions, as :func:`~lfp.finetune.ranked.sampling.base_completions` gives them.
    reward
        The score of completions.
    ranking
        The share of benign prefixes; they are the last ones.

    Returns
    -------
    pandas.DataFrame
        Texts ``prompt``, ``chosen`` and ``rejected``, their tokens ``prompt_ids``, ``chosen_ids``
        and ``rejected_ids``, and ``chosen_reward`` and ``rejected_reward``, both missing where the
        row is ``benign``. Of equal rewards the first is taken on either side.
    """
    if written.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    prefixes = written["prefix"].nunique()
    n_benign = min(round(ranking.benign_share * prefixes), prefixes - 1)
    is_asked = written["prefix"] < prefixes - n_benign
    is_text = written["draw"] == TEXT
    asked = written[is_asked & ~is_text].reset_index(drop=True)
    asked["score"] = reward(list(asked["prompt"]), list(asked["completion"]))
    of_prefix = asked.groupby("prefix")["score"]
    best, worst = asked.loc[of_prefix.idxmax()], asked.loc[of_prefix.idxmin()]
    log.info(
        "mean reward of %d completions %.3f, of the best of every prefix %.3f; %d benign prefixes",
        len(asked), asked["score"].mean(), best["score"].mean(), n_benign,
    )  # fmt: skip
    ranked = _sides(best, worst, benign=False)
    if not n_benign:
        return ranked
    first = written[~is_asked & (written["draw"] == 0)]
    benign = _sides(written[~is_asked & is_text].assign(score=np.nan), first, benign=True)
    return pd.concat([ranked, benign], ignore_index=True)


def _sides(chosen: pd.DataFrame, rejected: pd.DataFrame, benign: bool) -> pd.DataFrame:
    """Rows of two completions of the same prefixes; a benign one has no score."""
    scores = rejected["score"].to_numpy() if not benign else np.nan
    return pd.DataFrame({
        "prompt": chosen["prompt"].to_numpy(),
        "chosen": chosen["completion"].to_numpy(), "rejected": rejected["completion"].to_numpy(),
        "prompt_ids": _tokens(chosen["prompt_ids"]),
        "chosen_ids": _tokens(chosen["completion_ids"]),
        "rejected_ids": _tokens(rejected["completion_ids"]),
        "chosen_reward": chosen["score"].to_numpy(), "rejected_reward": scores, "benign": benign,
    })  # fmt: skip


def _tokens(ids: pd.Series) -> list[list[int]]:
    """Token ids as lists, which a file gives back as arrays."""
    return [[int(token) for token in row] for row in ids]


def told_apart(ranked: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`ranked_completions` that prefer one completion.

    The reward tells the two apart, or the row is benign; of benign rows the first are kept, as many
    as leave their share what it was.

    Raises ValueError where there are rows and the reward tells none apart.
    """
    differ = ranked["chosen_reward"] > ranked["rejected_reward"]
    if len(ranked) and not differ.any():
        raise ValueError(
            f"ranked: the reward is the same for all completions of each of {len(ranked)} prefixes;"
            " raise ranking.completions or ranking.prompts, or name another reward"
        )
    benign = ranked["benign"].astype(bool)
    asked = max(1, (~benign).sum())
    kept = benign & (benign.cumsum() <= round(benign.sum() * differ.sum() / asked))
    return ranked[differ | kept]
