"""Held-out excerpts on which features are active or not, for the scores of explanations.

Histograms of the features' activations on the same text are counted in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.explaining.scores import excerpts_of_feature, windows
from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models.hooks import site_activations
from lfp.models.tokens import added_tokens, length_batches, tokenize
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Explanations

#: Intervals of a histogram, from 0 to a feature's largest activation.
BINS = 32


class FeatureWindows(NamedTuple):
    """One feature on windows of text.

    It has the ``activations`` on the tokens of each window, the ``places`` of the windows (text,
    first token, end), and the character ``offsets`` of all tokens, by text.
    """

    layer: int
    feature: int
    activations: list[np.ndarray]
    places: list[tuple[int, int, int]]
    offsets: list[list[tuple[int, int]]]


@torch.no_grad()
def feature_windows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    explained: pd.DataFrame,
    texts: Sequence[str],
    settings: Explanations,
    state_path: str | Path | None = None,
) -> Iterator[FeatureWindows]:
    """Each explained feature on windows of ``settings.excerpt_tokens`` tokens, in one pass.

    A text's rest is a shorter window. Of the latents only the active ones are held: the threshold
    of an excerpt depends on the largest activation of all, so that none can be chosen before the
    last text is read.

    Parameters
    ----------
    model, tokenizer
        The language model whose activations are read.
    autoencoders
        Autoencoders by layer.
    explained
        Features, with ``layer`` and ``feature``.
    texts
        Texts to read, each up to ``settings.max_tokens`` tokens.
    settings
        Tokens per text and per window, and texts per forward pass.
    state_path
        A resume point, kept once a minute; an interrupted call goes on behind it.
    """
    sequences, offsets = tokenize(tokenizer, texts, settings.max_tokens)
    places = windows(offsets, settings.excerpt_tokens)
    features = {
        int(n): torch.tensor(group["feature"].to_numpy()) for n, group in explained.groupby("layer")
    }
    latents = _active_latents(
        model, tokenizer, autoencoders, features, sequences, settings, state_path
    )
    starts = _starts([len(sequence) for sequence in sequences], settings.batch_size)
    for layer, members in features.items():
        columns = latents.pop(layer).tocsc()
        for column, feature in enumerate(members.tolist()):
            values = columns[:, [column]].toarray()[:, 0]
            activations = [
                values[starts[text] + start : starts[text] + end] for text, start, end in places
            ]
            yield FeatureWindows(layer, feature, activations, places, offsets)


def _starts(lengths: Sequence[int], batch_size: int) -> np.ndarray:
    """The row of each text's first token among all tokens in the order in which they are read."""
    sizes, starts = np.array(lengths, dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    batches = length_batches(sizes, batch_size)
    if batches:
        order = np.concatenate(batches)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
    return starts


def _active_latents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    features: Mapping[int, torch.Tensor],
    sequences: Sequence[Sequence[int]],
    settings: Explanations,
    state_path: str | Path | None,
) -> dict[int, sparse.csr_array]:
    """Sparse latents [token, feature] of `features` by layer.

    Tokens are in the order in which they are read.
    """
    held = {
        n: sparse.csr_array((0, len(members)), dtype=np.float32) for n, members in features.items()
    }
    done, clock = _resumed_latents(state_path, held), Clock()
    parts = {n: [latents] for n, latents in held.items()}
    batches = site_activations(
        model=model,
        sequences=sequences,
        layers=sorted(features),
        pad=tokenizer.pad_token_id,
        batch_size=settings.batch_size,
        first=done,
        site=site_of(autoencoders),
    )
    total = -(-len(sequences) // settings.batch_size)
    added = len(added_tokens(tokenizer)[0])
    for _, mask, outputs in Progress(batches, desc="held-out texts", initial=done, total=total):
        for layer, members in features.items():
            latents = autoencoders[layer].text_latents(outputs[layer], mask, added)
            of_members = latents[:, members.to(model.device)]
            parts[layer].append(sparse.csr_array(of_members.cpu().numpy()))
        done += 1
        if state_path and clock.due():
            parts = {n: [sparse.vstack(pieces, format="csr")] for n, pieces in parts.items()}
            tensors = _latent_tensors({n: pieces[0] for n, pieces in parts.items()})
            save_tensors(state_path, tensors, {"batches": done})
    return {n: sparse.vstack(pieces) for n, pieces in parts.items()}


def _latent_tensors(latents: Mapping[int, sparse.csr_array]) -> dict[str, torch.Tensor]:
    """The parts of sparse latents [token, feature] by layer, as a resume point holds them."""
    names = ("data", "indices", "indptr")
    return {
        f"{n}.{name}": torch.from_numpy(getattr(array, name))
        for n, array in latents.items()
        for name in names
    }


def _resumed_latents(state_path: str | Path | None, latents: dict[int, sparse.csr_array]) -> int:
    """Put the state that an interrupted pass kept in place of `latents`.

    Returns the number of batches that it had read.
    """
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    for n, array in latents.items() if tensors else ():
        parts = [tensors[f"{n}.{name}"].numpy() for name in ("data", "indices", "indptr")]
        latents[n] = sparse.csr_array(tuple(parts), shape=(len(parts[2]) - 1, array.shape[1]))
    return counters["batches"]


def held_out_excerpts(
    features: Iterable[FeatureWindows], texts: Sequence[str], n: int, seed: int
) -> pd.DataFrame:
    """Excerpts of held-out `texts` on which each feature is and is not active.

    There are up to `n` of either kind.

    Columns ``layer``, ``feature``, and those of :func:`~lfp.explaining.scores.excerpts_of_feature`.
    """
    rng = np.random.default_rng(seed)
    rows = [
        {"layer": layer, "feature": feature, **row}
        for layer, feature, activations, places, offsets in features
        for row in excerpts_of_feature(activations, places, texts, offsets, n, rng)
    ]
    return pd.DataFrame(rows, columns=["layer", "feature", "task", "label", "excerpt"])


class Histograms:
    """Histograms of features' activations on the tokens of held-out text."""

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def counted(self, features: Iterable[FeatureWindows]) -> Iterator[FeatureWindows]:
        """Hand on `features`, and count the activations of each as it passes by."""
        for of_feature in features:
            counts = histogram(np.concatenate([np.zeros(0), *of_feature.activations]))
            self._rows.append({"layer": of_feature.layer, "feature": of_feature.feature, **counts})
            yield of_feature

    def frame(self) -> pd.DataFrame:
        """A row per feature: ``layer``, ``feature``, and what :func:`histogram` gives."""
        columns = ["layer", "feature", *histogram(np.zeros(0))]
        return pd.DataFrame(self._rows, columns=columns)


def histogram(activations: np.ndarray) -> dict[str, object]:
    """The distribution of one feature's `activations` [token].

    Returns the number of ``tokens`` and of ``active`` ones, the ``mean`` over all tokens, the
    ``largest`` activation, and ``counts``, the active tokens in :data:`BINS` intervals of one width
    from 0 to it.
    """
    active = activations[activations > 0]
    largest = float(active.max(initial=0))
    counts, _ = np.histogram(active, BINS, (0, largest or 1))
    mean = float(activations.mean()) if len(activations) else 0.0
    return {
        "tokens": len(activations), "active": len(active), "mean": mean, "largest": largest,
        "counts": counts.tolist(),
    }  # fmt: skip
