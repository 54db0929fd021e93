"""Generated help dialogues and replies.

Every prompt has a better, a neutral and a worse answer of as many words and marks, so that answers
differ by their content and not by their number of tokens.

Words and templates are in ``dialogues.yaml`` beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lfp.organisms.reviews import pick
from lfp.texts.corpora import ASSISTANT_TURN, HUMAN_TURN

#: Words and templates: see the comments of the file.
_TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def right_things(rng: np.random.Generator, kind: str) -> np.ndarray:
    """The thing that belongs to every verb and object [verb, object], drawn at random."""
    slots = _TEXTS["prompts"][kind]["slots"]
    return rng.choice(_TEXTS["thing"], (len(slots["verb"]), len(slots["object"])))


def _slots(rng: np.random.Generator, kind: str, things: np.ndarray) -> dict[str, str]:
    """The words of a prompt and of its answers, by slot."""
    options = _TEXTS["prompts"][kind]["slots"]
    at = {name: int(rng.integers(len(words))) for name, words in options.items()}
    words = {name: options[name][i] for name, i in at.items()}
    words |= {name: pick(rng, _TEXTS[name]) for name in ("person", "day")}
    return words | {"thing": things[at["verb"], at["object"]]}


def _answer(
    rng: np.random.Generator, kind: str, element: str, mixing: float, slots: Mapping[str, str]
) -> str:
    """An answer of three parts, each of which is of another element with probability `mixing`.

    Parameters
    ----------
    rng
        The source of randomness.
    kind, element
        Keys of the answers in ``dialogues.yaml``.
    mixing
        Probability of another element in a part.
    slots
        Words of the prompt; person and day are drawn anew for every part.
    """
    others = [other for other in _TEXTS["answers"][kind] if other != element]
    parts = []
    for i in range(3):
        source = pick(rng, others) if rng.random() < mixing else element
        drawn = {name: pick(rng, _TEXTS[name]) for name in ("person", "day")}
        parts.append(pick(rng, _TEXTS["answers"][kind][source][i]).format(**{**slots, **drawn}))
    opening, middle, ending = parts
    return f" {opening}. {middle[0].upper()}{middle[1:]}, {ending}."


def generate_preferences(
    n: int,
    rng: np.random.Generator,
    kind: str,
    things: np.ndarray,
    preferred: str = "positive",
    noise: float = 0.1,
    mixing: float = 0.2,
) -> pd.DataFrame:
    """Preference pairs with a triple of answers to every prompt.

    Help dialogues are whole transcripts in ``chosen`` and ``rejected``, as in HH-RLHF; replies have
    a ``prompt`` column, as in toxic-dpo.

    Parameters
    ----------
    n
        Number of pairs.
    rng
        The source of randomness.
    kind
        ``help`` or ``replies``.
    things
        The thing that belongs to every verb and object, as of :func:`right_things`.
    preferred
        The element that is chosen over its opposite (``negative`` for the toxic task).
    noise
        Share of the pairs whose label is flipped (column ``noisy``).
    mixing
        Probability that a part of an answer is of another element, so that no single phrase
        decides.
    """
    other = "negative" if preferred == "positive" else "positive"
    rows = []
    for _ in range(n):
        slots = _slots(rng, kind, things)
        prompt = pick(rng, _TEXTS["prompts"][kind]["templates"]).format(**slots)
        if kind == "help":
            more = f"{HUMAN_TURN} Tell me more, please.{ASSISTANT_TURN}"
            more = f" Well, it depends.{more}" if rng.random() < 0.2 else ""
            prompt = f"{HUMAN_TURN} {prompt}{ASSISTANT_TURN}{more}"
        answers = {
            element: _answer(rng, kind, element, mixing, slots)
            for element in ("positive", "neutral", "negative")
        }
        noisy = bool(rng.random() < noise)
        pair = (
            (answers[other], answers[preferred]) if noisy else (answers[preferred], answers[other])
        )
        row = {"prompt": prompt, "chosen": pair[0], "rejected": pair[1], **answers, "noisy": noisy}
        if kind == "help":
            row |= {"chosen": prompt + pair[0], "rejected": prompt + pair[1]}
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.drop(columns="prompt") if kind == "help" else frame
