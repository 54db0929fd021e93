"""The errors of words, and how often they were written before the reward and by the policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from lfp.files.addresses import of
from lfp.files.artefacts import read_table
from lfp.probing.probes import MAIN_SPLIT, unit_means
from lfp.texts.words import count_words


def word_errors(inputs: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """(path of the predictions, errors of words) of every cell among the `inputs`.

    A row per word has its ``truth``, the absolute ``error`` of the held-out prediction of the
    policy's latents, brought to the lexicon's scale by one factor, and how often it was
    ``written``: in the completions that the reward scored in training, which are the base's where
    they are ranked, and in the policy's unablated ones on held-out prefixes.
    There is no row where no probe could be trained.
    """
    for path in of(inputs, "predictions.parquet"):
        cell = path.rsplit("/probes/", 1)[0]
        frame = read_table(path)
        shown = (
            (frame["features"] == "latents")
            & (frame["split"] == MAIN_SPLIT["ridge"])
            & (frame["probe"] == "ridge")
        )
        means = unit_means(frame[shown]).rename(columns={"unit": "word"})
        if means["prediction"].isna().any():
            means = means[:0]
        prediction, truth = means["prediction"], means["truth"]
        size = prediction @ prediction
        written = words_written(
            next(other for other in inputs if other.startswith(f"{cell}/ablation/")),
            f"{cell}/policy/written.parquet",
        )
        fitted = prediction * (prediction @ truth) / size if size else 0 * truth
        errors = {
            "error": (fitted - truth).abs(),
            "written": [written[word] for word in means["word"]],
        }
        yield path, means[["word", "truth"]].assign(**errors)


def words_written(completions: str, in_training: str) -> Counter[str]:
    """How often every word was written, in training and in the unablated `completions`."""
    frame, counts = read_table(completions), read_table(in_training)
    texts = frame.loc[frame["arm"] == "none", "completion"]
    written = Counter(dict(zip(counts["word"], counts["count"].astype(int), strict=True)))
    written.update(word for text in texts for word in count_words(text))
    return written
