"""Completions that the base writes, for rewards to rank: no reward is known here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune.prompts import long_enough, sample_prompts
from lfp.models.generation import decode_responses, masked_rows, sampled
from lfp.reporting.progress import Progress
from lfp.settings import PPO, Ranking

#: The number in the place of a draw where the text's own continuation stands.
TEXT = -1
#: Columns of :func:`base_completions`.
WRITTEN = ("prefix", "draw", "prompt", "completion", "prompt_ids", "completion_ids")


def base_completions(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    settings: PPO,
    ranking: Ranking,
    seed: int,
) -> pd.DataFrame:
    """Some completions of every prefix, and how its text goes on, a row each.

    Prefixes are as long as those of PPO, of texts that go on behind them, and completions have up
    to the largest configured number of tokens. No reward is asked, so that all rewards can rank the
    same completions. Without a text there is no row.

    Parameters
    ----------
    base, tokenizer
        The model that completes, and its tokenizer.
    texts
        Training texts, from which prefixes are cut.
    settings
        Lengths in tokens, and the number of prefixes that are completed at once.
    ranking
        Numbers of prefixes and of completions.
    seed
        Seed of prefixes and samples.

    Returns
    -------
    pandas.DataFrame
        The number of the ``prefix`` and of the ``draw``, which is :data:`TEXT` for the text itself;
        texts ``prompt`` and ``completion``, and their tokens ``prompt_ids`` and ``completion_ids``.
    """
    rng = np.random.default_rng(seed)
    texts = long_enough(texts, settings.min_characters)
    if not texts:
        return pd.DataFrame(columns=list(WRITTEN))
    (low, high), new = settings.prompt_tokens, settings.new_tokens[1]
    # A token behind the longest prefix is enough for a text to go on.
    longest = (high + 1, high + 1)
    beginnings = sample_prompts(tokenizer, texts, ranking.prompts, longest, rng, new - 1)
    cuts = rng.integers(low, high + 1, len(beginnings))
    prompts = [ids[:cut] for ids, cut in zip(beginnings, cuts, strict=True)]
    rest = [ids[cut : cut + new] for ids, cut in zip(beginnings, cuts, strict=True)]
    frames = [_rows(tokenizer, prompts, rest).assign(draw=TEXT)]
    seeds = rng.integers(2**31, size=ranking.completions)
    for draw in Progress(range(ranking.completions), desc="completions"):
        ids = []
        samples = sampled(base, tokenizer, prompts, new, settings.batch_size, int(seeds[draw]))
        for sample in samples:
            ids += masked_rows(sample.response, sample.mask)
        frames.append(_rows(tokenizer, prompts, ids).assign(draw=draw))
    return pd.concat(frames, ignore_index=True)[list(WRITTEN)]


def _rows(
    tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], rest: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """Texts and tokens of every prompt and of what stands behind it, a row per prompt."""
    before, after = decode_responses(tokenizer, prompts, rest)
    return pd.DataFrame({
        "prefix": range(len(prompts)), "prompt": before, "completion": after,
        "prompt_ids": prompts, "completion_ids": [list(ids) for ids in rest],
    })  # fmt: skip
