"""All splits of a generated corpus, by the name of its generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lfp.organisms.dialogues import generate_preferences
from lfp.organisms.reviews import generate_reviews, sentiment_vocabulary
from lfp.texts.corpora import deduplicated

#: Options of each generator, by its name.
OPTIONS = {
    "reviews": ("words_per_class", "off_polarity", "neutral"),
    "help": ("noise", "preferred", "mixing"),
    "replies": ("noise", "preferred", "mixing"),
}


def generate_corpus(
    kind: str, splits: Mapping[str, int], seed: int, options: Mapping[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """All splits of a generated corpus and their counts.

    `kind` is ``reviews``, ``help`` or ``replies``. A corpus has one stream of random numbers: its
    splits are consecutive draws, and duplicates of an earlier split are dropped.
    """
    rng = np.random.default_rng(seed)
    options = dict(options)
    if kind == "reviews":
        vocabulary = sentiment_vocabulary(options.pop("words_per_class"), rng)
        frames = {
            name: generate_reviews(n, rng, vocabulary, **options) for name, n in splits.items()
        }
        key = ["text"]
    else:
        # Held-out labels stay clean, so that accuracies on them are not lowered by noise.
        noise = options.pop("noise")
        frames = {
            name: generate_preferences(
                n, rng, kind, noise=noise if name == "train" else 0.0, **options
            )
            for name, n in splits.items()
        }
        key = ["chosen", "rejected"]
    return deduplicated(frames, key)
