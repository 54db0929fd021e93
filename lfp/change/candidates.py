"""Candidates and contexts: the words that a readout values, and the texts that it reads them in.

Both come from held-out texts: an audit must be able to name a word that nobody thought of.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from lfp.models.tokens import pieces, tokenize
from lfp.texts.corpora import preference_pairs
from lfp.texts.words import WORD, count_words

log = logging.getLogger(__name__)

#: Words of a text in front of a position that is read, at least.
LEAST_BEFORE = 4
#: A text in front of a word whose pieces are asked for.
_BEFORE = "a"


@dataclass(frozen=True)
class Candidates:
    """Words as they stand inside a text, and the token ids of their pieces."""

    words: list[str]
    pieces: list[list[int]]

    def in_parts(self, size: int) -> Iterator[Candidates]:
        """The words of one token, and those of several in parts of at most `size` words."""
        whole = [i for i, ids in enumerate(self.pieces) if len(ids) == 1]
        several = [i for i, ids in enumerate(self.pieces) if len(ids) > 1]
        starts = range(0, len(several), size)
        for chosen in (whole, *(several[start : start + size] for start in starts)):
            if chosen:
                words = [self.words[i] for i in chosen]
                yield Candidates(words, [self.pieces[i] for i in chosen])


def different_texts(corpus: pd.DataFrame) -> list[str]:
    """Texts of a corpus that share nothing: its ``text`` column, or each prompt with one answer."""
    if "text" in corpus:
        return list(corpus["text"])
    pairs = preference_pairs(corpus)[0].drop_duplicates("prompt")
    return list(pairs["prompt"] + pairs["chosen"])


def frequent_words(texts: Sequence[str], most: int, least_texts: int) -> list[str]:
    """The `most` words of `texts` that stand in the most texts, in `least_texts` at least, sorted.

    Words are lower-cased.
    """
    counts = Counter(word for text in texts for word in set(count_words(text)))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sorted(word for word, n in ranked[:most] if n >= least_texts)


def candidates(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> Candidates:
    """The `words` with the pieces that they have behind a text, that of the space among them.

    Words without any are left out.
    """
    before = len(next(pieces(tokenizer, [_BEFORE]))[0])
    kept = Candidates([], [])
    texts = (f"{_BEFORE} {word}" for word in words)
    for word, (ids, _) in zip(words, pieces(tokenizer, texts), strict=True):
        if len(ids) > before:
            kept.words.append(word)
            kept.pieces.append(ids[before:])
    if len(kept.words) < len(words):
        log.info("%d words have no token", len(words) - len(kept.words))
    return kept


def drawn_contexts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    n: int,
    max_tokens: int,
    seed: int,
) -> list[list[int]]:
    """Token ids of the beginnings of `n` texts, each up to a random word.

    The word itself and the space in front of it are left out, and at most `max_tokens` are kept,
    the last ones. A text gives one context, so that contexts are independent.

    Parameters
    ----------
    tokenizer
        The models' tokenizer.
    texts
        Texts, of which a random order is taken. Those without a position that has
        :data:`LEAST_BEFORE` words in front are left out.
    n
        Number of contexts, at most.
    max_tokens
        Tokens of a context, at most.
    seed
        Seed of texts and positions.
    """
    rng = np.random.default_rng(seed)
    prefixes = []
    for i in rng.permutation(len(texts)):
        starts = [match.start() for match in WORD.finditer(texts[i])][LEAST_BEFORE:]
        starts = [start for start in starts if _behind_one_space(texts[i], start)]
        if starts:
            prefixes.append(texts[i][: starts[rng.integers(len(starts))] - 1])
        if len(prefixes) == n:
            break
    return tokenize(tokenizer, prefixes, max_tokens, prompts=True).ids


def _behind_one_space(text: str, start: int) -> bool:
    return text[start - 1] == " " and not text[start - 2].isspace()
