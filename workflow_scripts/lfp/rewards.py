"""Rewards: lexicon sums over word tokens, and planted rewards whose truth is known.

The VADER reward is the sum of the lexicon's valences over the lower-cased tokens of spaCy's English tokenizer
rules, divided by 5 and clipped to [-10, 10] (paper section 3.1; reward_class.py:26-58 of the reference study).
``spacy.blank("en")`` holds the same tokenizer rules as the full pipeline that the authors ran, without its cost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from workflow_scripts.lfp.lexicon import WORD, Lexicon

#: A reward maps (prompts, completions) to one float per pair.
Reward = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@lru_cache(maxsize=1)
def english_tokenizer():
    """spaCy's rule-based English tokenizer; no model is loaded."""
    import spacy

    return spacy.blank("en").tokenizer


def tokenize(text: str) -> list[str]:
    """Lower-cased word tokens of `text`."""
    return [token.text.lower() for token in english_tokenizer()(text)]


def count_words(text: str) -> list[str]:
    """Lower-cased words of `text` as fitted lexica count them (no rules for contractions)."""
    return [match.group().lower() for match in WORD.finditer(text)]


def lexicon_reward(
    lexicon: Lexicon,
    divisor: float = 5.0,
    clip: float = 10.0,
    reward_on: str = "full",
    tokens: Callable[[str], list[str]] = tokenize,
) -> Reward:
    """A reward that sums `lexicon` over the scored text's `tokens`.

    Parameters
    ----------
    divisor, clip
        The sum is divided by `divisor` and clipped to [-`clip`, `clip`].
    reward_on
        ``full`` scores prefix + completion (paper), ``completion`` the completion alone (the published code).

    Raises
    ------
    ValueError
        If `reward_on` is neither.
    """
    if reward_on not in ("full", "completion"):
        raise ValueError(f"reward_on: expected 'full' or 'completion', got {reward_on!r}")

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        scored = [p + c if reward_on == "full" else c for p, c in zip(prompts, completions, strict=True)]
        sums = [sum(lexicon.get(token, 0.0) for token in tokens(text)) for text in scored]
        return np.clip(np.asarray(sums, dtype=np.float64) / divisor, -clip, clip)

    return reward


def length_reward(divisor: float = 5.0, clip: float = 10.0) -> Reward:
    """Number of words of the completion over `divisor`, at most `clip`: a reward that no word's meaning enters."""

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        lengths = np.array([len(count_words(completion)) for completion in completions], dtype=np.float64)
        return np.minimum(lengths / divisor, clip)

    return reward


#: Standard deviation of the noise before it is divided: about that of a lexicon sum over a completion.
NOISE = 2.0


def noise_reward(seed: int, divisor: float = 5.0) -> Reward:
    """A normal number drawn from the completion's digest, of standard deviation :data:`NOISE` over `divisor`.

    The same text always scores the same, and nothing can be learned from it.
    """

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        digests = [hashlib.sha256(f"{seed}/{text}".encode()).digest()[:8] for text in completions]
        draws = [np.random.default_rng(int.from_bytes(digest, "big")).normal() for digest in digests]
        return np.array(draws) * NOISE / divisor

    return reward


def task_reward(feedback: Mapping[str, Any], divisor: float, clip: float, reward_on: str) -> Reward:
    """The reward of a task from its lexicon file; a preference is scored by its fitted log-odds of the completion."""
    kind = feedback["kind"]
    if kind == "preference":
        return lexicon_reward(feedback["rewarded"], 1.0, np.inf, "completion", count_words)
    if kind == "length":
        return length_reward(divisor, clip)
    if kind == "noise":
        return noise_reward(feedback["reward_seed"], divisor)
    return lexicon_reward(feedback["rewarded"], divisor, clip, reward_on)
