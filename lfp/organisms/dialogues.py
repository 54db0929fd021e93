"""Generated help dialogues and replies.

Every prompt has a better, a neutral and a worse answer of equal length.

Words and templates are in ``dialogues.yaml`` beside this module.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lfp.organisms.reviews import pick
from lfp.texts.corpora import ASSISTANT_TURN, HUMAN_TURN

#: Words and templates: ``tasks`` and ``asks`` of help dialogues, ``topics`` and ``remarks`` of
#: replies, and ``answers`` by kind and element in three parts.
_TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _answer(rng: np.random.Generator, kind: str, element: str, mixing: float) -> str:
    """An answer of three parts, each of which is of another element with probability `mixing`."""
    others = [other for other in _TEXTS["answers"][kind] if other != element]
    sources = [pick(rng, others) if rng.random() < mixing else element for _ in range(3)]
    opening, middle, ending = (
        pick(rng, _TEXTS["answers"][kind][source][i]) for i, source in enumerate(sources)
    )
    return f" {opening}. {middle[0].upper()}{middle[1:]}, {ending}."


def generate_preferences(
    n: int,
    rng: np.random.Generator,
    kind: str,
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
        if kind == "help":
            prompt = "".join(
                f"{HUMAN_TURN} {pick(rng, _TEXTS['asks']).format(task=pick(rng, _TEXTS['tasks']))}"
                f"{ASSISTANT_TURN}{filler}"
                for filler in ([" Tell me more, please.", ""] if rng.random() < 0.2 else [""])
            )
        else:
            prompt = pick(rng, _TEXTS["remarks"]).format(topic=pick(rng, _TEXTS["topics"]))
        answers = {
            element: _answer(rng, kind, element, mixing)
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
