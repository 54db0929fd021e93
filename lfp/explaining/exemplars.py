"""Exemplars of a feature for its explainer: its top activations, and random windows of text.

Latents stream by once, text by text, and of every feature only the windows of its top activations
are held. So one pass, which explanations make anyway, serves all features of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lfp.explaining.scores import windows
from lfp.models.tokens import tokenize
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Explanations

#: Largest value of the scale of shown activations.
SCALE = 10
COLUMNS = ("layer", "feature", "kind", "activation", "excerpt", "tokens", "activations")


class StrongestWindows:
    """The `top` windows of largest activation of each feature of a layer, at most one of a text.

    Parameters
    ----------
    offsets
        Character spans of every text's tokens, in order of the texts.
    size
        Tokens of a window. A text's rest is left out, unless no text has a window of `size`.
    features
        Number of features.
    top
        Windows that are kept of each feature.
    random
        Random windows that are shown beside them; they are drawn before anything is read.
    seed
        Seed of the random windows.
    """

    def __init__(
        self,
        offsets: Sequence[Sequence[tuple[int, int]]],
        size: int,
        features: int,
        top: int,
        random: int,
        seed: int,
    ) -> None:
        self.offsets, self.random = offsets, random
        self.places = windows(offsets, size, size) or windows(offsets, size)
        self.of_text: dict[int, list[int]] = {}
        for place, (text, _, _) in enumerate(self.places):
            self.of_text.setdefault(text, []).append(place)
        # A feature's top windows are not among its random ones, so as many more are drawn.
        drawn = np.random.default_rng(seed).permutation(len(self.places))[: top + random]
        self.slot_of = {int(place): slot for slot, place in enumerate(drawn)}
        #: The changing state of the pass, as tensors that a resume point can hold.
        self.state = {
            "peaks": torch.zeros(top, features),
            "places": torch.full((top, features), -1, dtype=torch.int32),
            "activations": torch.zeros(top, size, features),
            "drawn": torch.zeros(len(drawn), size, features),
        }

    def add(self, text: int, latents: np.ndarray) -> None:
        """Take in the `latents` [token, feature] of one text.

        Among equally strong windows the one that was read first stays.
        """
        peaks, places, activations, drawn = (value.numpy() for value in self.state.values())
        of_text = self.of_text.get(text, [])
        if not of_text:
            return
        values = np.zeros((len(of_text), *activations.shape[1:]), dtype=np.float32)
        for row, place in zip(values, of_text, strict=True):
            _, start, end = self.places[place]
            row[: end - start] = latents[start:end]
            if place in self.slot_of:
                drawn[self.slot_of[place]] = row
        every = np.arange(values.shape[2])
        largest = values.max(1)
        best = largest.argmax(0)
        slot = peaks.argmin(0)
        stronger = np.flatnonzero(largest[best, every] > peaks[slot, every])
        slot, best = slot[stronger], best[stronger]
        peaks[slot, stronger] = largest[best, stronger]
        places[slot, stronger] = np.array(of_text)[best]
        activations[slot, :, stronger] = values[best, :, stronger]

    def rows(self, feature: int, texts: Sequence[str]) -> list[dict[str, object]]:
        """The exemplars of a feature.

        A row has ``kind`` (``top``, ``random``), ``activation`` (the window's largest),
        ``excerpt``, the text as a language model is shown it, and the same window as it was read:
        its ``tokens``, pieces of text, and the ``activations`` on them.

        A feature that is never active has no evidence.
        """
        peaks, places, activations, drawn = (
            value[..., feature].numpy() for value in self.state.values()
        )
        picked = [int(slot) for slot in np.argsort(-peaks, kind="stable") if peaks[slot] > 0]
        if not picked:
            return []
        strongest = {int(places[slot]) for slot in picked}
        others = [place for place in self.slot_of if place not in strongest][: self.random]
        shown_windows = [("top", int(places[slot]), activations[slot]) for slot in picked]
        shown_windows += [("random", place, drawn[self.slot_of[place]]) for place in others]
        rows: list[dict[str, object]] = []
        for kind, place, values in shown_windows:
            text, start, end = self.places[place]
            tokens = text_pieces(texts[text], self.offsets[text][start:end])
            read = values[: end - start]
            rows.append({
                "kind": kind, "activation": float(values.max()),
                "excerpt": shown(tokens, read, peaks.max()),
                "tokens": tokens, "activations": read.tolist(),
            })  # fmt: skip
        return rows


def strongest_windows(
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    texts: Sequence[str],
    settings: Explanations,
    seed: int,
) -> dict[int, StrongestWindows]:
    """The strongest windows of every layer's features, still empty.

    Parameters
    ----------
    tokenizer
        Its tokens are those of the windows.
    autoencoders
        Autoencoders by layer.
    texts
        The texts that will be read, each up to ``settings.max_tokens`` tokens.
    settings
        Tokens of a window (``excerpt_tokens``), and numbers of windows (``evidence_top``,
        ``evidence_random``).
    seed
        Seed of the random windows; a layer's number is added to it.
    """
    offsets = tokenize(tokenizer, texts, settings.max_tokens).spans
    return {
        layer: StrongestWindows(
            offsets,
            size=settings.excerpt_tokens,
            features=autoencoder.d_sae,
            top=settings.evidence_top,
            random=settings.evidence_random,
            seed=seed + layer,
        )
        for layer, autoencoder in autoencoders.items()
    }


def evidence(
    strongest: Mapping[int, StrongestWindows], explained: pd.DataFrame, texts: Sequence[str]
) -> pd.DataFrame:
    """The exemplars of every feature of `explained` (``layer``, ``feature``).

    They have the columns :data:`COLUMNS`.
    """
    rows = [
        {"layer": layer, "feature": feature, **row}
        for layer, feature in explained[["layer", "feature"]].itertuples(index=False, name=None)
        for row in strongest[layer].rows(feature, texts)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def text_pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of `text` up to the end of each of `spans`, from the beginning of the first on.

    Characters between two spans are of the latter piece. A character of several tokens is of the
    first of them, and the others are empty.
    """
    ends = [spans[0][0], *(end for _, end in spans)]
    return [text[start:end] for start, end in pairwise(ends)]


def shown(tokens: Sequence[str], activations: np.ndarray, largest: float) -> str:
    """The text of `tokens`, with scaled activations in braces behind each active one."""
    scaled = np.rint(np.clip(activations / largest, 0, 1) * SCALE).astype(int)
    marked = (f"{token}{{{n}}}" if n else token for token, n in zip(tokens, scaled, strict=True))
    return " ".join("".join(marked).split())
