"""The texts of autoencoders: those that they learn from, and those that they are measured on.

The answers to a prompt are texts with one beginning. A causal model reads that beginning without
knowing of what follows, so its activations are the same in all of them, and count once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile

import pandas as pd
from transformers import PreTrainedTokenizerBase

from lfp.models.tokens import encode
from lfp.settings import Activations
from lfp.texts.corpora import taken
from lfp.texts.readers import beginnings


def split_texts(texts: Sequence[str], settings: Activations) -> tuple[list[str], list[str]]:
    """The texts that autoencoders learn from, at most ``settings.texts``, and the held-out ones.

    The latter are the last ``settings.held_out_texts`` of `texts`. Both are empty where there is
    no text.

    Raises ValueError where nothing is left to learn from.
    """
    count, held_out = len(texts), settings.held_out_texts
    if count and count <= held_out:
        raise ValueError(
            f"activations.held_out_texts is {held_out}, and the split {settings.split!r} has"
            f" {count} texts, so that none is left to learn from: lower it, set activations.split,"
            " or give the corpus more texts"
        )
    cut = max(0, count - held_out)
    return list(taken(texts[:cut], settings.texts, "activations.texts")), list(texts[cut:])


def read_before(
    held_out: Mapping[str, pd.DataFrame], read: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Number of the ``texts`` or prompts of corpora, and of those that begin a text in `read`.

    A causal model's activations there are then those that autoencoders have learned from. White
    space is not compared: another copy of a corpus has other line ends and margins.

    Parameters
    ----------
    held_out
        The corpora of prompts and excerpts, and of triples, by name.
    read
        The texts that autoencoders have learned from.

    Returns
    -------
    dict
        The counts ``texts`` and ``read`` of every corpus.
    """
    known = sorted(map(_words, read))

    def begins(text: str) -> bool:
        place = bisect_left(known, text)  # what begins so stands right behind it
        return place < len(known) and known[place].startswith(text)

    counts = {}
    for name, corpus in held_out.items():
        texts = {text for text in map(_words, beginnings(corpus)) if text}
        counts[name] = {"texts": len(texts), "read": sum(map(begins, texts))}
    return counts


def _words(text: str) -> str:
    """A text with single spaces between its words, and none around them."""
    return " ".join(text.split())


def encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], settings: Activations, least: int = 1
) -> list[list[int]]:
    """Token ids of `texts`; ValueError where there are texts, and none has the `least` tokens."""
    sequences = encode(tokenizer, texts, settings.max_tokens)
    if len(texts) and not any(len(sequence) >= least for sequence in sequences):
        raise ValueError(
            f"activations: none of {len(texts)} texts has {least} tokens, and autoencoders need"
            " one that has: check the corpus and the tokenizer, or read more texts"
            " (activations.texts, activations.held_out_texts)"
        )
    return sequences


def left_out(
    sequences: Sequence[Sequence[int]],
    added: int,
    prompts: bool,
    before: Sequence[Sequence[int]] = (),
) -> tuple[list[int], dict[str, int]]:
    """Number of tokens in front of each sequence that are not read, and their counts by reason.

    They are the first `added`, which the tokenizer puts in front (count ``added``), and, where the
    texts are `prompts` with answers, those with which a sequence repeats another (``copies``).

    Parameters
    ----------
    sequences
        Token ids. Of those that begin alike, the first in the order of token ids is read from its
        beginning.
    added
        Number of tokens that the tokenizer puts in front of a text.
    prompts
        Whether the texts are prompts with answers.
    before
        Token ids of texts that were read before, as held-out texts repeat those of training.
    """
    repeated = [0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i])) if prompts else []
    for previous, i in pairwise(order):
        repeated[i] = _common(sequences[previous], sequences[i])
    known = sorted(map(list, before))
    for i in order:
        # In a sorted list, a neighbour has the longest common beginning.
        place = bisect_left(known, list(sequences[i]))
        neighbours = known[max(0, place - 1) : place + 1]
        repeated[i] = max([repeated[i], *(_common(ids, sequences[i]) for ids in neighbours)])
    lead = [min(added, len(sequence)) for sequence in sequences]
    fronts = [max(pair) for pair in zip(lead, repeated, strict=True)]
    return fronts, {"added": sum(lead), "copies": sum(fronts) - sum(lead)}


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of tokens with which both sequences begin."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in alike)
