"""Scoring of texts, which several rewards share.

This module has the scored text of a pair, its tokens, and sums of a lexicon over them.

The VADER reward is the sum of the lexicon's valences over the lower-cased tokens of spaCy's English
tokenizer rules, divided by 5 and clipped to [-10, 10] (paper section 3.1; reward_class.py:26-58 of
the reference study). ``spacy.blank("en")`` holds the same tokenizer rules as the full pipeline that
the authors ran, without its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from lfp.feedback.rewards.base import Reward
from lfp.texts.words import Lexicon


@lru_cache(maxsize=1)
def english_tokenizer():
    """spaCy's rule-based English tokenizer; no model is loaded."""
    import spacy

    return spacy.blank("en").tokenizer


def tokenize(text: str) -> list[str]:
    """Lower-cased word tokens of `text`."""
    return [token.text.lower() for token in english_tokenizer()(text)]


def scored_texts(prompts: Sequence[str], completions: Sequence[str], reward_on: str) -> list[str]:
    """The text of each pair that a reward scores.

    It is both parts (``full``), or the ``completion`` alone.
    """
    return [p + c if reward_on == "full" else c for p, c in zip(prompts, completions, strict=True)]


def lexicon_reward(
    lexicon: Lexicon,
    divisor: float = 5.0,
    clip: float = 10.0,
    reward_on: str = "full",
    tokens: Callable[[str], list[str]] = tokenize,
) -> Reward:
    """A reward that sums `lexicon` over the scored text's tokens.

    Parameters
    ----------
    lexicon
        Value of every word; other words count 0.
    divisor, clip
        The sum is divided by `divisor` and clipped to [-`clip`, `clip`].
    reward_on
        ``full`` scores prefix + completion (paper), ``completion`` the completion alone (the
        published code).
    tokens
        The tokens of a text, spelled as in `lexicon`.

    Raises
    ------
    ValueError
        If `reward_on` is neither.
    """
    if reward_on not in ("full", "completion"):
        raise ValueError(f"reward_on: expected 'full' or 'completion', got {reward_on!r}")

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        scored = scored_texts(prompts, completions, reward_on)
        sums = [sum(lexicon.get(token, 0.0) for token in tokens(text)) for text in scored]
        return np.clip(np.asarray(sums, dtype=np.float64) / divisor, -clip, clip)

    return reward
