"""What is drawn on a page: histograms, and the steps by which tokens are highlighted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Steps of highlighting.
STEPS = 10
#: Width and height of a histogram's field, in units of the drawing, and the share of the width of
#: an interval that its bar fills.
WIDTH, HEIGHT, FILLED = 320, 110, 0.85


@dataclass(frozen=True)
class Piece:
    """A piece of an excerpt: its text, its step of highlighting (0 for none), its activation."""

    text: str
    step: int
    activation: float


@dataclass(frozen=True)
class Bars:
    """A histogram as it is drawn: the outline of all bars, and the marks of its vertical axis.

    A mark is a height in units of the drawing, from the top, and the number of tokens there.
    """

    outline: str
    marks: list[tuple[float, int]]


def highlighted(tokens: Sequence[str], activations: Sequence[float], largest: float) -> list[Piece]:
    """The text of `tokens` in pieces: every active token is one, and so is all between two.

    An active token has a step from 1 to :data:`STEPS`, the share of the `largest` activation
    rounded up. A token without text, which is the rest of a character, is highlighted with the
    token that has the character.
    """
    read: list[tuple[str, float]] = []
    for text, activation in zip(tokens, activations, strict=True):
        if not text and read:
            before, strength = read.pop()
            text, activation = before, max(strength, activation)
        read.append((text, activation))
    pieces: list[Piece] = []
    for text, activation in read:
        step = math.ceil(STEPS * min(activation / largest, 1)) if activation > 0 else 0
        if step == 0 and pieces and pieces[-1].step == 0:
            text = pieces.pop().text + text
        pieces.append(Piece(text, step, activation))
    return pieces


def bars(counts: Sequence[int]) -> Bars:
    """The bars of `counts`; their heights are logarithms, so that rare activations are seen."""
    top = math.log10(1 + max(counts, default=0)) or 1.0
    width = WIDTH / max(len(counts), 1)
    parts = []
    for place, count in enumerate(counts):
        height = HEIGHT * math.log10(1 + count) / top
        if count:
            left = place * width
            parts.append(f"M{left:.1f} {HEIGHT}v{-height:.1f}h{width * FILLED:.1f}v{height:.1f}z")
    powers = [10**power for power in range(12) if math.log10(1 + 10**power) <= top]
    marks = [(HEIGHT - HEIGHT * math.log10(1 + mark) / top, mark) for mark in powers]
    return Bars("".join(parts), marks)
