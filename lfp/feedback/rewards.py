"""Rewards: lexicon sums over word tokens, planted rewards whose truth is known, classifiers and any
function.

The VADER reward is the sum of the lexicon's valences over the lower-cased tokens of spaCy's English
tokenizer rules, divided by 5 and clipped to [-10, 10] (paper section 3.1; reward_class.py:26-58 of
the reference study). ``spacy.blank("en")`` holds the same tokenizer rules as the full pipeline that
the authors ran, without its cost.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lfp.texts.words import WORD, Lexicon

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
        ``full`` scores prefix + completion (paper), ``completion`` the completion alone (the
        published code).

    Raises
    ------
    ValueError
        If `reward_on` is neither.
    """
    if reward_on not in ("full", "completion"):
        raise ValueError(f"reward_on: expected 'full' or 'completion', got {reward_on!r}")

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        scored = _scored_texts(prompts, completions, reward_on)
        sums = [sum(lexicon.get(token, 0.0) for token in tokens(text)) for text in scored]
        return np.clip(np.asarray(sums, dtype=np.float64) / divisor, -clip, clip)

    return reward


def length_reward(divisor: float = 5.0, clip: float = 10.0) -> Reward:
    """Number of words of the completion over `divisor`, at most `clip`: a reward that no word's
    meaning enters.
    """

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        lengths = np.array(
            [len(count_words(completion)) for completion in completions], dtype=np.float64
        )
        return np.minimum(lengths / divisor, clip)

    return reward


#: Standard deviation of the noise before it is divided: about that of a lexicon sum over a
#: completion.
NOISE = 2.0


def noise_reward(seed: int, divisor: float = 5.0) -> Reward:
    """A normal number drawn from the completion's digest, of standard deviation :data:`NOISE` over
    `divisor`.

    The same text always scores the same, and nothing can be learned from it.
    """

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        digests = [hashlib.sha256(f"{seed}/{text}".encode()).digest()[:8] for text in completions]
        draws = [
            np.random.default_rng(int.from_bytes(digest, "big")).normal() for digest in digests
        ]
        return np.array(draws) * NOISE / divisor

    return reward


def _scored_texts(prompts: Sequence[str], completions: Sequence[str], reward_on: str) -> list[str]:
    """What a reward reads of each pair: both parts, or the completion alone."""
    return [p + c if reward_on == "full" else c for p, c in zip(prompts, completions, strict=True)]


def classifier_reward(
    path: str | Path,
    positive: str | int,
    clip: float,
    reward_on: str,
    device: str = "cpu",
    batch_size: int = 64,
) -> Reward:
    """The logit of the label `positive` of the sequence classifier at `path`, clipped (paper
    appendix B).

    `positive` is a label's name or its number. Raises FileNotFoundError without safetensors
    weights, ValueError for a label that the classifier does not have.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not list(Path(path).glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path}: no *.safetensors weights; convert the classifier (save_pretrained) first"
        )
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        path, use_safetensors=True, local_files_only=True
    )
    model = model.to(device).eval()
    labels = {str(name): int(number) for number, name in model.config.id2label.items()}
    labels |= {str(number): number for number in labels.values()}
    if str(positive) not in labels:
        raise ValueError(
            f"{path}: no label {positive!r}; the classifier has {', '.join(labels)}. Set `positive`"
        )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id

    @torch.no_grad()
    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        texts, logits = _scored_texts(prompts, completions, reward_on), []
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            batch = tokenizer(
                part, padding=True, truncation=True, max_length=512, return_tensors="pt"
            ).to(device)
            logits.append(model(**batch).logits[:, labels[str(positive)]].double().cpu().numpy())
        return np.clip(np.concatenate(logits), -clip, clip)

    return reward


def callable_reward(name: str, clip: float) -> Reward:
    """The function ``module:function`` of (prompts, completions), one number for each pair,
    clipped.

    Raises ValueError where there is no such function; the reward itself does where the function
    returns another number of values, or values that are not finite.
    """
    module, _, function = name.partition(":")
    try:
        call = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"tasks: the reward {name!r} cannot be imported from the working directory: {error}"
        ) from error

    def reward(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
        values = np.asarray(call(list(prompts), list(completions)), dtype=np.float64)
        if values.shape != (len(completions),) or not np.isfinite(values).all():
            raise ValueError(
                f"the reward {name} must return a finite number for each of {len(completions)}"
                f" completions; it returned"
                f" {values.size} values, {int(np.isfinite(values).sum())} of them finite"
            )
        return np.clip(values, -clip, clip)

    return reward


def task_reward(
    feedback: Mapping[str, Any],
    divisor: float,
    clip: float,
    reward_on: str,
    classifier: Sequence[str] = (),
    device: str = "cpu",
) -> Reward:
    """The reward of a task from its lexicon file; a preference is scored by its fitted log-odds of
    the completion.

    `classifier` holds the directory of the classifier where that is the reward; `device` is where
    it runs.
    """
    kind = feedback["kind"]
    if kind == "classifier":
        return classifier_reward(classifier[0], feedback["positive"], clip, reward_on, device)
    if kind == "callable":
        return callable_reward(feedback["callable"], clip)
    if kind == "preference":
        return lexicon_reward(feedback["rewarded"], 1.0, np.inf, "completion", count_words)
    if kind == "length":
        return length_reward(divisor, clip)
    if kind == "noise":
        return noise_reward(feedback["reward_seed"], divisor)
    return lexicon_reward(feedback["rewarded"], divisor, clip, reward_on)
