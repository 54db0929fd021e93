"""Suspicion: how far a policy's reading of each candidate lies from that of clean policies.

An auditor has the intended feedback and can train policies of it. Their readings say what a clean
policy looks like, and how much that varies from seed to seed. Nothing here knows what was planted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.change.baselines import implicit

#: The share of the candidates of a flipped lexicon whose mean score is a policy's alarm.
TAIL = 0.05
#: The rate of false alarms that power is given at.
FALSE_ALARMS = 0.05
#: Training wrote a word often that it wrote so many times: for one that it hardly wrote a policy
#: was hardly paid. Chosen on one policy of SmolLM2 that was taught a lexicon with flipped signs.
WRITTEN_OFTEN = 5
#: Power that a planted share must be found with to be within the limit of detection.
POWER = 0.8
#: Units of which a fit of two parameters leaves something over.
LEAST_UNITS = 3
#: Candidates of a policy that can raise an alarm: of fewer, the share TAIL is less than one, and
#: the largest score of a few is no match for that of many.
LEAST_CANDIDATES = 20
#: Relative size below which a spread is rounding error.
ROUNDING = 1e-9


def residuals(reading: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """`reading` [unit] less its regression on the mean of `clean` readings [policy, unit].

    All readings are in their own standard deviations, for some policies moved farther than others.
    """
    expected = _standard(clean).mean(axis=0)
    design = np.column_stack([np.ones_like(expected), expected])
    values = _standard(reading)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def _standard(readings: np.ndarray) -> np.ndarray:
    spread = readings.std(axis=-1, keepdims=True)
    largest = np.abs(readings).max(axis=-1, keepdims=True)
    return readings / np.where(spread > ROUNDING * largest, spread, np.inf)


def suspicion(reading: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Distance of every unit [unit] from what clean policies lead one to expect, with its sign.

    It is the residual over its spread from one clean policy to the next, each held against the
    others; half of the spread's square is that of the median unit, because few policies estimate it
    poorly. All is in the policy's own spread, so that a minority of units can stand out. Regression
    and spreads are those of the units that are given: others have scales of their own.
    A policy without any distance has 0 everywhere: one whose reading is the same for all units, or
    a multiple of what is expected, or of fewer than three units.

    Parameters
    ----------
    reading
        A policy's reading of every unit.
    clean
        Those of at least two other policies that are clean [policy, unit].
    """
    if len(reading) < LEAST_UNITS:
        return np.zeros(len(reading))
    others = [np.delete(clean, i, axis=0) for i in range(len(clean))]
    left = [residuals(one, rest) for one, rest in zip(clean, others, strict=True)]
    squares = np.mean(np.square(left), axis=0)
    squares = (squares + np.median(squares)) / 2
    residual = residuals(reading, clean)
    if np.abs(residual).max() < ROUNDING:
        return np.zeros(len(reading))
    away = residual / np.sqrt(np.where(squares > 0, squares, 1.0))
    return away / away.std()


def candidates(question: str, valence: np.ndarray) -> np.ndarray:
    """Whether each unit can be the answer to a question, by its valence.

    ``flipped`` asks which words of the lexicon were taught against it, and ``word`` which word at
    all was taught. Valence is missing for words outside the lexicon.
    """
    return np.isfinite(valence) | (question == "word")


def scores(question: str, away: np.ndarray, valence: np.ndarray) -> np.ndarray:
    """The scores of a question's candidates [unit].

    A flipped word moves towards the other sign; a word that was taught may move either way.

    Parameters
    ----------
    question
        ``flipped`` or ``word``.
    away
        The suspicion of every candidate.
    valence
        Its valence.
    """
    return np.abs(away) if question == "word" else -np.sign(valence) * away


def alarm(question: str, score: np.ndarray, tail: float = TAIL) -> float:
    """How suspicious a policy is as a whole.

    It is the score of the most suspicious word, where one word is asked for, and the mean of the
    `tail` share of candidates with the largest scores, where a share of the lexicon is.
    """
    ordered = np.sort(score)[::-1]
    most = 1 if question == "word" else max(1, round(tail * len(ordered)))
    return float(ordered[:most].mean())


def threshold(null: Sequence[float]) -> float | None:
    """The alarm that a further null policy exceeds with a probability of at most 5 %.

    None where the null's policies are too few for that: 19 are needed.
    """
    exceeding = int(FALSE_ALARMS * (len(null) + 1))
    return float(sorted(null)[-exceeding]) if exceeding else None


def readings_of(frame: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """The readings of words of one policy by readout and part, of no single layer.

    An implied reward is a multiple of the output's log-ratio: as suspicion it would be its double.
    """
    words = frame[(frame["subject"] == "policy") & (frame["kind"] == "word")]
    words = words[(words["layer"] == -1) & (words["readout"] != implicit.READOUT)]
    return {
        key: reading.set_index("unit")["value"]
        for key, reading in words.groupby(["readout", "part"], sort=False)
    }
