"""Activations of all features on a corpus, by word, in one pass of the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.explaining.association import WordActivations
from lfp.explaining.exemplars import StrongestWindows
from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models.hooks import site_activations
from lfp.models.tokens import added_tokens, tokenize
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Explanations
from lfp.texts.words import WORD


def words_of_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[str | None]:
    """The lower-cased word that each token belongs to.

    It is None for punctuation, for spaces, and for tokens without characters.
    """
    spans = [(match.start(), match.end(), match.group().lower()) for match in WORD.finditer(text)]
    result: list[str | None] = []
    position = 0
    for first, last in offsets:
        while position < len(spans) and spans[position][1] <= first:
            position += 1
        inside = first < last and position < len(spans) and spans[position][0] < last
        result.append(spans[position][2] if inside else None)
    return result


@torch.no_grad()
def word_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    texts: Sequence[str],
    settings: Explanations,
    strongest: Mapping[int, StrongestWindows] | None = None,
    state_path: str | Path | None = None,
) -> dict[int, WordActivations]:
    """Activations of all features of every layer, by word, in one pass over `texts`.

    Parameters
    ----------
    model, tokenizer
        The language model whose activations are read.
    autoencoders
        Autoencoders by layer.
    texts
        Texts to read, each up to ``settings.max_tokens`` tokens.
    settings
        Tokens per text and texts per forward pass.
    strongest
        Windows of each layer (:func:`~lfp.explaining.exemplars.strongest_windows`) to fill in the
        same pass.
    state_path
        A resume point, kept once a minute; an interrupted call goes on behind it.

    Returns
    -------
    dict
        :class:`~lfp.explaining.association.WordActivations` by layer.
    """
    sequences, offsets = tokenize(tokenizer, texts, settings.max_tokens)
    added = len(added_tokens(tokenizer)[0])
    words = [words_of_tokens(t, spans) for t, spans in zip(texts, offsets, strict=True)]
    vocabulary = sorted({word for row in words for word in row if word is not None})
    index_of = {word: i for i, word in enumerate(vocabulary)} | {None: len(vocabulary)}
    strongest = strongest or {}
    sums = _Sums(len(vocabulary), autoencoders, strongest)
    done, clock = resumed(state_path, sums.tensors), Clock()
    batches = site_activations(
        model=model,
        sequences=sequences,
        layers=sorted(autoencoders),
        pad=tokenizer.pad_token_id,
        batch_size=settings.batch_size,
        first=done,
        site=site_of(autoencoders),
    )
    total = -(-len(texts) // settings.batch_size)
    for index, mask, outputs in Progress(batches, desc="texts read", initial=done, total=total):
        ids = torch.tensor([index_of[word] for i in index for word in words[i]])
        sums.count(ids)
        for layer, autoencoder in autoencoders.items():
            latents = autoencoder.text_latents(outputs[layer], mask, added).cpu()
            sums.add(layer, ids, latents)
            if layer in strongest:
                lengths = [len(sequences[i]) for i in index]
                for text, values in zip(index, latents.split(lengths), strict=True):
                    strongest[layer].add(int(text), values.numpy())
        done += 1
        if state_path and clock.due():
            save_tensors(state_path, sums.tensors, {"batches": done})
    return {layer: sums.activations(layer, vocabulary) for layer in sorted(autoencoders)}


class _Sums:
    """Sums over the tokens that were read, with the state of the `strongest` windows.

    Both are ``tensors`` that a resume point can hold.
    """

    def __init__(
        self,
        words: int,
        autoencoders: Mapping[int, SparseAutoencoder],
        strongest: Mapping[int, StrongestWindows],
    ) -> None:
        # The last row is that of the tokens that belong to no word.
        self.tensors = {"counts": torch.zeros(words + 1, dtype=torch.int64)}
        for layer in sorted(autoencoders):
            size = autoencoders[layer].d_sae
            self.tensors |= {
                f"{layer}.sums": torch.zeros(words + 1, size),
                f"{layer}.active": torch.zeros(size, dtype=torch.float64),
                f"{layer}.peak": torch.zeros(size),
            }
        for layer, windows in strongest.items():
            self.tensors |= {f"{layer}.{name}": value for name, value in windows.state.items()}

    def count(self, words: torch.Tensor) -> None:
        """Count the words [token] of a batch."""
        self.tensors["counts"] += torch.bincount(words, minlength=len(self.tensors["counts"]))

    def add(self, layer: int, words: torch.Tensor, latents: torch.Tensor) -> None:
        """Add the latents [token, feature] of a layer to the sums of their words [token]."""
        self.tensors[f"{layer}.sums"].index_add_(0, words, latents)
        self.tensors[f"{layer}.active"] += (latents > 0).double().sum(0)
        peak = self.tensors[f"{layer}.peak"]
        torch.maximum(peak, latents.max(0).values, out=peak)

    def activations(self, layer: int, vocabulary: list[str]) -> WordActivations:
        """The means of one layer."""
        counts, sums = self.tensors["counts"].numpy(), self.tensors[f"{layer}.sums"]
        total = max(1, counts.sum())
        return WordActivations(
            words=vocabulary,
            count=counts[:-1],
            mean=sums[:-1].numpy() / np.maximum(counts[:-1], 1)[:, None],
            frequency=self.tensors[f"{layer}.active"].numpy() / total,
            mean_activation=sums.sum(0).double().numpy() / total,
            max_activation=self.tensors[f"{layer}.peak"].numpy(),
        )


def resumed(state_path: str | Path | None, held: Mapping[str, torch.Tensor]) -> int:
    """Fill `held` with the state that an interrupted pass kept at `state_path`.

    Returns the number of batches that it had read.
    """
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    for name, value in tensors.items():
        held[name].copy_(value)
    return counters["batches"]
