"""Prefixes of texts, which models complete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from lfp.models.tokens import tokenize


def sample_prompts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    size: int,
    bounds: tuple[int, int],
    rng: np.random.Generator,
    beyond: int = 0,
) -> list[list[int]]:
    """Prefixes of `size` random documents, of those that have as many tokens as the longest prefix.

    Documents alone that are drawn are encoded, for a corpus has thousands of times their tokens.
    One that turns out to be too short is drawn again, behind all other draws. What the tokenizer
    adds in front counts, for it leads every prompt.

    Parameters
    ----------
    tokenizer, texts
        The tokenizer, and the documents; without any there is no prefix.
    size
        The number of prefixes.
    bounds
        The length of each is drawn uniformly from these, both ends included.
    rng
        The source of the draws.
    beyond
        Tokens that are returned behind every prefix, as many of them as its document has.

    Raises
    ------
    ValueError
        Where there are documents, and none is long enough.
    """
    if not texts:
        return []
    picks = rng.integers(0, len(texts), size)
    lengths = rng.integers(bounds[0], bounds[1] + 1, size)
    encoded: dict[int, list[int]] = {}
    while True:
        new = sorted({int(pick) for pick in picks} - set(encoded))
        ids = tokenize(tokenizer, [texts[pick] for pick in new], prompts=True).ids
        encoded |= dict(zip(new, ids, strict=True))
        short = np.array([len(encoded[int(pick)]) < bounds[1] for pick in picks])
        if not short.any():
            break
        if len(encoded) == len(texts) and all(len(ids) < bounds[1] for ids in encoded.values()):
            raise ValueError(
                f"no document of the corpus has {bounds[1]} tokens; shorten the prompts or check"
                " the corpus"
            )
        picks[short] = rng.integers(0, len(texts), int(short.sum()))
    return [encoded[int(p)][: length + beyond] for p, length in zip(picks, lengths, strict=True)]


def long_enough(texts: Sequence[str], min_characters: int) -> list[str]:
    """The texts of at least `min_characters` characters.

    Raises ValueError if there are texts, and none has that many.
    """
    kept = [text for text in texts if len(text) >= min_characters]
    if len(texts) and not kept:
        raise ValueError(
            f"no document of the corpus has {min_characters} characters; lower ppo.min_characters"
        )
    return kept
