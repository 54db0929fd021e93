"""All splits of a generated corpus, by the name of its generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lfp.organisms.dialogues import generate_preferences, right_things
from lfp.organisms.reviews import film_facts, generate_reviews, sentiment_vocabulary
from lfp.texts.corpora import deduplicated, documents, pair_texts

#: Draws of held-out pairs after which the generator gives up.
MOST_DRAWS = 50
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
    splits are consecutive draws, and duplicates of an earlier split are dropped. No prompt and no
    answer of a held-out pair stands in the training text.
    """
    rng = np.random.default_rng(seed)
    options = dict(options)
    if kind == "reviews":
        vocabulary = sentiment_vocabulary(options.pop("words_per_class"), rng)
        facts = film_facts(rng)
        frames = {
            name: generate_reviews(n, rng, vocabulary, facts, **options)
            for name, n in sorted(splits.items())  # settings come with their keys in any order
        }
        key = ["text"]
    else:
        noise = options.pop("noise")
        draw = partial(
            generate_preferences, rng=rng, kind=kind, things=right_things(rng, kind), **options
        )
        frames = {"train": draw(splits["train"], noise=noise)}
        # Held-out labels stay clean, so that accuracies on them are not lowered by noise.
        frames["test"] = unseen(partial(draw, noise=0.0), splits["test"], frames["train"])
        key = ["chosen", "rejected"]
    return deduplicated(frames, key)


def unseen(draw: Callable[[int], pd.DataFrame], n: int, train: pd.DataFrame) -> pd.DataFrame:
    """`n` rows of `draw` of which neither the prompt nor an answer stands in a text of `train`.

    So a model that learned `train` has to judge them by more than memory.
    """
    seen, rows = "\n".join(documents(train)), []
    for _ in range(MOST_DRAWS):
        frame = draw(n - sum(map(len, rows)))
        known = pair_texts(frame).map(lambda text: text in seen).any(axis=1)
        rows.append(frame.loc[known.index[~known]])
        if sum(map(len, rows)) == n:
            return pd.concat(rows, ignore_index=True)
    raise ValueError(
        f"the generator finds no {n} pairs beside {len(train)} training ones: nearly all that it"
        " can write is in training already; lower splits.train or splits.test of the corpus, or"
        " raise its `mixing`"
    )
