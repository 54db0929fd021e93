"""What an explainer is shown of a feature: the windows of text on which it is most active, and
random ones.

Codes stream by once, text by text, and of every feature only its strongest windows are held, so
that a layer's features are all served by the pass that its explanations make anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from lfp.explaining.scores import windows

#: Largest value of the scale that activations are shown on.
SCALE = 10
COLUMNS = ("layer", "feature", "kind", "activation", "excerpt")


class StrongestWindows:
    """Of each feature of one layer, the `top` windows of largest activation, at most one of a text.

    Parameters
    ----------
    offsets
        Character spans of every text's tokens, in order of the texts.
    size
        Tokens of a window. A text's rest is left out, unless no text has a window of `size`.
    features, top, random, seed
        How many features there are, how many windows are kept of each, and how many random ones are
        shown beside them; those are drawn before anything is read.
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
        # A feature's strongest windows are not among its random ones, so as many more are drawn.
        drawn = np.random.default_rng(seed).permutation(len(self.places))[: top + random]
        self.slot_of = {int(place): slot for slot, place in enumerate(drawn)}
        #: All that changes while texts are read, as tensors that a resume point can hold.
        self.state = {
            "peaks": torch.zeros(top, features),
            "places": torch.full((top, features), -1, dtype=torch.int32),
            "activations": torch.zeros(top, size, features),
            "drawn": torch.zeros(len(drawn), size, features),
        }

    def add(self, text: int, code: np.ndarray) -> None:
        """Take in the `code` [token, feature] of one text. Among equally strong windows the one
        read first stays.
        """
        peaks, places, activations, drawn = (value.numpy() for value in self.state.values())
        own = self.of_text.get(text, [])
        if not own:
            return
        values = np.zeros((len(own), *activations.shape[1:]), dtype=np.float32)
        for row, place in zip(values, own, strict=True):
            _, start, end = self.places[place]
            row[: end - start] = code[start:end]
            if place in self.slot_of:
                drawn[self.slot_of[place]] = row
        every = np.arange(values.shape[2])
        largest = values.max(1)
        best = largest.argmax(0)
        slot = peaks.argmin(0)
        found = np.flatnonzero(largest[best, every] > peaks[slot, every])
        slot, best = slot[found], best[found]
        peaks[slot, found] = largest[best, found]
        places[slot, found] = np.array(own)[best]
        activations[slot, :, found] = values[best, :, found]

    def rows(self, feature: int, texts: Sequence[str]) -> list[dict[str, object]]:
        """``kind`` (``top``, ``random``), ``activation`` (the window's largest) and ``excerpt`` of
        what is shown.

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
            excerpt = shown(
                texts[text], self.offsets[text][start:end], values[: end - start], peaks.max()
            )
            rows.append({"kind": kind, "activation": float(values.max()), "excerpt": excerpt})
        return rows


def evidence(
    strongest: Mapping[int, StrongestWindows], explained: pd.DataFrame, texts: Sequence[str]
) -> pd.DataFrame:
    """What is shown of every feature of `explained` (``layer``, ``feature``), with the columns
    :data:`COLUMNS`.
    """
    rows = [
        {"layer": layer, "feature": feature, **row}
        for layer, feature in explained[["layer", "feature"]].itertuples(index=False, name=None)
        for row in strongest[layer].rows(feature, texts)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shown(
    text: str, spans: Sequence[tuple[int, int]], activations: np.ndarray, largest: float
) -> str:
    """`text` between its first and last span, with the scaled activation in braces behind each
    active token.
    """
    scaled = np.rint(np.clip(activations / largest, 0, 1) * SCALE).astype(int)
    pieces, position = [], spans[0][0]
    for (_, end), value in zip(spans, scaled, strict=True):
        pieces.append(text[position:end])
        pieces.append(f"{{{value}}}" if value else "")
        position = end
    return " ".join("".join(pieces).split())
