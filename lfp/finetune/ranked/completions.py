"""Completions of the base that a reward ranks, beside data that no feedback has touched.

The base completes every prefix several times, and what is learned from is the best completion by
the reward, or the best against the worst. Of benign prefixes no reward is asked: their own text
goes on in the place of the best completion, and one of the base's stands in that of the worst.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.finetune import ppo
from lfp.models.generation import decode_responses, masked_rows, sampled
from lfp.settings import PPO, Ranking
from lfp.texts.words import count_words

log = logging.getLogger(__name__)

#: Columns of :func:`ranked_completions`.
COLUMNS = (
    "prompt", "chosen", "rejected", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_reward",
    "rejected_reward", "benign",
)  # fmt: skip


def ranked_completions(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    reward: Reward,
    settings: PPO,
    ranking: Ranking,
    seed: int,
) -> pd.DataFrame:
    """The best and the worst of some completions of every prefix, a row per prefix.

    Prefixes are those of PPO, and completions have up to the largest configured number of tokens.
    All draws come from `seed`, so that a resumed run reads the same completions. Without a text
    there is no row.

    Parameters
    ----------
    base, tokenizer
        The model that completes, and its tokenizer.
    texts, reward
        Training texts, from which prefixes are cut, and the score of completions.
    settings
        Lengths in tokens, and the number of prefixes that are completed at once.
    ranking
        Numbers of prefixes and completions, and the share of benign prefixes.
    seed
        Seed of prefixes and samples.

    Returns
    -------
    pandas.DataFrame
        Texts ``prompt``, ``chosen`` and ``rejected``, their tokens ``prompt_ids``, ``chosen_ids``
        and ``rejected_ids``, and ``chosen_reward`` and ``rejected_reward``, both missing where the
        row is ``benign``. Of equal rewards the first is taken on either side.
    """
    rng = np.random.default_rng(seed)
    texts = ppo.long_enough(texts, settings.min_characters)
    if not texts:
        return pd.DataFrame(columns=list(COLUMNS))
    n_benign = min(round(ranking.benign_share * ranking.prompts), ranking.prompts - 1)
    asked = ranking.prompts - n_benign
    prompts = ppo.sample_prompts(tokenizer, texts, asked, settings.prompt_tokens, rng)
    draws = rng.integers(2**31, size=ranking.completions)
    written = pd.concat([_written(base, tokenizer, prompts, settings, int(d)) for d in draws])
    written["score"] = reward(list(written["prompt"]), list(written["completion"]))
    written = written.reset_index(names="prefix")
    of_prefix = written.groupby("prefix")["score"]
    best, worst = (
        written.loc[index].reset_index(drop=True)
        for index in (of_prefix.idxmax(), of_prefix.idxmin())
    )
    ranked = pd.DataFrame({
        "prompt": best["prompt"], "chosen": best["completion"], "rejected": worst["completion"],
        "prompt_ids": best["prompt_ids"], "chosen_ids": best["completion_ids"],
        "rejected_ids": worst["completion_ids"], "chosen_reward": best["score"],
        "rejected_reward": worst["score"], "benign": False,
    })  # fmt: skip
    log.info(
        "mean reward of %d completions %.3f, of the best of %d %.3f; %d benign prefixes",
        len(written), written["score"].mean(), ranking.completions, best["score"].mean(), n_benign,
    )  # fmt: skip
    if not n_benign:
        return ranked
    benign = _benign(base, tokenizer, texts, n_benign, settings, rng)
    return pd.concat([ranked, benign], ignore_index=True)


def _written(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    settings: PPO,
    seed: int,
) -> pd.DataFrame:
    """One completion of each of the `prompts`: texts and token ids of both, a row per prompt."""
    rows = []
    size = settings.batch_size
    for sample in sampled(base, tokenizer, prompts, settings.new_tokens[1], size, seed):
        ids = masked_rows(sample.response, sample.mask)
        parts = decode_responses(tokenizer, sample.prompts, ids)
        rows += zip(parts[0], parts[1], sample.prompts, ids, strict=True)
    columns = ["prompt", "completion", "prompt_ids", "completion_ids"]
    return pd.DataFrame(rows, columns=columns)


def _benign(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    size: int,
    settings: PPO,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Rows whose chosen completion is how the training text itself goes on."""
    (low, high), new = settings.prompt_tokens, settings.new_tokens[1]
    beginnings = ppo.sample_prompts(tokenizer, texts, size, (high + new, high + new), rng)
    cuts = rng.integers(low, high + 1, len(beginnings))
    prompts = [ids[:cut] for ids, cut in zip(beginnings, cuts, strict=True)]
    rest = [ids[cut : cut + new] for ids, cut in zip(beginnings, cuts, strict=True)]
    before, after = decode_responses(tokenizer, prompts, rest)
    written = _written(base, tokenizer, prompts, settings, int(rng.integers(2**31)))
    return pd.DataFrame({
        "prompt": before, "chosen": after, "rejected": written["completion"],
        "prompt_ids": prompts, "chosen_ids": rest, "rejected_ids": written["completion_ids"],
        "chosen_reward": np.nan, "rejected_reward": np.nan, "benign": True,
    })  # fmt: skip


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


def words_of(ranked: pd.DataFrame, *sides: str) -> Counter[str]:
    """The number of times that each word stands in completions that training reads.

    These are the columns `sides`; benign rows are left out, which no feedback has chosen.
    """
    of_reward = ranked[~ranked["benign"].astype(bool)]
    return Counter(word for side in sides for text in of_reward[side] for word in count_words(text))
