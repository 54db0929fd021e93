"""All that base and policy read alike: words, contexts from held-out texts, and triples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lfp.change.candidates import Candidates, candidates, drawn_contexts, frequent_words
from lfp.change.choice import Pair
from lfp.probing.data import SIGNS
from lfp.settings import Change
from lfp.texts.words import Lexicon

log = logging.getLogger(__name__)

#: The subject of rows of the base whose weights have noise on them, before its number.
NOISE = "weight_noise"


@dataclass(frozen=True)
class Material:
    """All that both models read.

    Parameters
    ----------
    words
        Candidates of every readout that values words.
    contexts
        Token ids of held-out texts up to a word.
    triples
        Contrast triples.
    lexicon
        Valence by word, which the frozen ruler alone reads; None for preferences.
    max_tokens
        Tokens of a triple's text, at most.
    """

    words: Candidates
    contexts: list[list[int]]
    triples: pd.DataFrame
    lexicon: Lexicon | None
    max_tokens: int

    @property
    def kind(self) -> str:
        """The kind of unit that feedback is about: ``word``, or the ``answer`` of a preference."""
        return "answer" if self.lexicon is None else "word"


def material(
    pair: Pair,
    texts: Sequence[str],
    triples: pd.DataFrame,
    lexicon: Lexicon | None,
    settings: Change,
    max_tokens: int,
    seed: int,
) -> Material:
    """Candidates and contexts from held-out texts.

    Parameters
    ----------
    pair
        Base and policy, for their tokenizer.
    texts
        Held-out texts, which words and contexts are drawn from.
    triples
        Contrast triples, whose words are candidates beside the frequent ones.
    lexicon
        Valence by word; None for preferences.
    settings
        Numbers of words and contexts.
    max_tokens
        Tokens of a triple's text, at most.
    seed
        Seed of the contexts.
    """
    extra = [] if lexicon is None else [word for e in SIGNS for word in triples[e].str.lower()]
    frequent = frequent_words(texts, settings.words, settings.least_texts)
    words = candidates(pair.tokenizer, sorted({*frequent, *extra}))
    tokens = settings.context_tokens
    contexts = drawn_contexts(pair.tokenizer, texts, settings.contexts, tokens, seed)
    log.info("%d words behind %d contexts", len(words.words), len(contexts))
    return Material(words, contexts, triples, lexicon, max_tokens)
