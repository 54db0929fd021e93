"""The texts of autoencoders: those that they learn from, and those that they are measured on."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lfp.models.tokens import encode
from lfp.settings import Activations
from lfp.texts.corpora import taken


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
