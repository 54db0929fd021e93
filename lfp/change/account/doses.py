"""The dose: what a policy's change of weights does in other amounts than it was trained to.

Models have the weights θ_0 + λ (θ_π - θ_0), the base at λ = 0 and the policy at 1. A lesson that
grows with λ and turns its sign with it is what the change of weights says throughout; one that is
there at 1 alone is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lfp.change.candidates import Candidates, candidates, drawn_contexts, frequent_words
from lfp.change.choice import Pair, word_shares
from lfp.change.weights import at_dose
from lfp.locus.effects import Measure, divergence_measure
from lfp.reporting.progress import Progress
from lfp.settings import Change

#: Parts of the readout at the choice that are read at every dose.
PARTS = ("mlp", "blocks", "log_ratio")
#: Columns of the rows of doses.
COLUMNS = ("dose", "quantity", "part", "unit", "value", "valence")


@dataclass(frozen=True)
class ValuedWords:
    """Words that feedback has a value for, and contexts that they are read in.

    Parameters
    ----------
    words
        The words with their pieces.
    valence
        The value of every word.
    contexts
        Token ids of texts up to a word.
    settings
        Weights of the contexts, and the size of batches.
    """

    words: Candidates
    valence: Mapping[str, float]
    contexts: list[list[int]]
    settings: Change


def valued_words(
    pair: Pair,
    texts: Sequence[str],
    lexicon: Mapping[str, float],
    contexts: int,
    settings: Change,
    seed: int,
) -> ValuedWords:
    """The words of a lexicon that held-out texts have, and contexts from these texts.

    Parameters
    ----------
    pair
        Base and policy, for their tokenizer.
    texts
        Held-out texts.
    lexicon
        Valence by word; empty for preferences, whose words have none that was taught.
    contexts
        Number of contexts, at most.
    settings
        How many words of the texts there are, and tokens of a context.
    seed
        Seed of the contexts.
    """
    frequent = frequent_words(texts, settings.words, settings.least_texts) if lexicon else []
    words = candidates(pair.tokenizer, [word for word in frequent if word in lexicon])
    drawn = drawn_contexts(pair.tokenizer, texts, contexts, settings.context_tokens, seed)
    return ValuedWords(words, lexicon, drawn, settings)


def dose_effects(
    pair: Pair,
    doses: Sequence[float],
    measure: Measure,
    sequences: Sequence[Sequence[int]],
    read: ValuedWords,
) -> pd.DataFrame:
    """The effect of every dose, its divergence from the base, and what it would rather say.

    Parameters
    ----------
    pair
        Base and policy.
    doses
        Multiples of the change of weights; 0 is measured as well. Without any nothing is.
    measure
        The effect of a model on every instance.
    sequences
        Token ids of the texts on which models are held against the base.
    read
        Words whose log-ratio to the base is read.

    Returns
    -------
    pandas.DataFrame
        A row per dose, quantity and unit: ``dose``, ``quantity`` (``effect``; ``kl``, that of the
        dose to the base, nats of a text; ``choice``), ``part`` (of ``choice``), ``unit`` (number of
        the instance or text, or the word), ``value``, and of words ``valence``.
    """
    frames, pad = [pd.DataFrame(columns=COLUMNS)], pair.tokenizer.pad_token_id
    for dose in Progress(sorted({0.0, *doses}) if doses else [], desc="doses"):
        model = at_dose(pair.base, pair.policy, dose)
        divergence = -divergence_measure(model, sequences, pad)(pair.base)
        frames += [
            _numbered("effect", measure(model)).assign(dose=dose),
            _numbered("kl", divergence).assign(dose=dose),
        ]
        if read.words.words and read.contexts:
            frames.append(_choice(Pair(pair.base, model, pair.tokenizer), read).assign(dose=dose))
    result = pd.concat(frames, ignore_index=True).fillna({"part": ""})
    return result.astype({"dose": float, "value": float, "valence": float, "unit": str})


def _numbered(quantity: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"quantity": quantity, "unit": np.arange(len(values)), "value": values})


def _choice(pair: Pair, read: ValuedWords) -> pd.DataFrame:
    """The shares of the parts in every word's log-ratio of the two models."""
    asked = read.settings
    size, exponent = asked.batch_size, asked.likelihood_exponent
    frame = pd.concat(
        word_shares(pair, words, read.contexts, exponent, size)
        for words in read.words.in_parts(size)
    )
    chosen = frame[frame["part"].isin(PARTS) & (frame["layer"] == -1)]
    named = chosen[["part", "word", "value"]].rename(columns={"word": "unit"})
    return named.assign(quantity="choice", valence=named["unit"].map(read.valence))
