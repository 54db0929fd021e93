"""Generated movie reviews with known truth.

Reviews hold sentiment words from the VADER lexicon in coherent company: the text after a word tells
its polarity and its intensity. So the language model can learn the value of a word that the probe
has never seen. Words and templates are in ``reviews.yaml`` beside this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lfp.feedback.lexica import vader_lexicon, words_by_form
from lfp.texts.neutral_words import neutral_words

#: Words and templates: ``nouns``, ``verbs``, ``places``, ``openings`` by grammatical form, degree
#: words by intensity, and the ``company`` of a word.
_TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
#: The marks and closings that follow a word, by its sign and intensity (0 mild or neutral,
#: 1 strong).
_COMPANY = {(entry["sign"], entry["intensity"]): entry for entry in _TEXTS["company"]}
#: Share of sentences with a closing behind the mark.
CLOSING_SHARE = 0.25


#: Valence above which a word counts as strong: the median of VADER's absolute values among the
#: chosen words.
STRONG_VALENCE = 2.0


def sentiment_vocabulary(words_per_class: int, rng: np.random.Generator) -> pd.DataFrame:
    """Sentiment words of the generated reviews: word, form, sign, valence and weight.

    The weight is a relative frequency.

    There are `words_per_class` words for each form of the openings and each sign, spread evenly
    over valence; weights are Zipfian (exponent 0.3) over a random order, and every tenth word is
    ten times rarer, so that the tokenizer leaves some words in several pieces.
    """
    lexicon = vader_lexicon()
    table = words_by_form(lexicon)
    rows = []
    for form in _TEXTS["openings"]:
        for sign in (1, -1):
            words = table[form, sign]
            picks = np.unique(
                np.linspace(0, len(words) - 1, min(words_per_class, len(words))).round().astype(int)
            )
            rows += [(words[i], form, sign, lexicon[words[i]]) for i in picks]
    frame = pd.DataFrame(rows, columns=["word", "form", "sign", "valence"])
    rank = rng.permutation(len(frame)) + 1
    frame["weight"] = rank**-0.3 * np.where(rank % 10 == 0, 0.1, 1.0)
    return frame


def generate_reviews(
    n: int,
    rng: np.random.Generator,
    vocabulary: pd.DataFrame,
    sentences: tuple[int, int] = (3, 6),
    off_polarity: float = 0.03,
    neutral: float = 0.1,
) -> pd.DataFrame:
    """Generated reviews (column ``text``) whose sentiment words keep to the review's polarity.

    The clause after a word always agrees with that word's own sign and intensity.

    Parameters
    ----------
    n
        Number of reviews.
    rng
        The source of randomness.
    vocabulary
        Sentiment words as of :func:`sentiment_vocabulary`.
    sentences
        The smallest and the largest number of sentences of a review.
    off_polarity
        Share of a review's sentiment words with the other sign.
    neutral
        Share of sentences with a neutral word.
    """
    neutrals = neutral_words(vader_lexicon())
    pools = {
        (form, sign): (
            group["word"].to_numpy(),
            group["valence"].to_numpy(),
            _shares(group["weight"]),
        )
        for (form, sign), group in vocabulary.groupby(["form", "sign"])
    }
    forms = list(_TEXTS["openings"])
    texts = []
    for _ in range(n):
        polarity = 1 if rng.random() < 0.5 else -1
        parts = []
        for _ in range(rng.integers(sentences[0], sentences[1] + 1)):
            form = forms[rng.integers(len(forms))]
            if rng.random() < neutral:
                word, sign, strong = pick(rng, neutrals[form]), 0, 0
            else:
                sign = -polarity if rng.random() < off_polarity else polarity
                words, valences, shares = pools[form, sign]
                index = int(np.searchsorted(shares, rng.random()))
                word, strong = words[index], int(abs(valences[index]) >= STRONG_VALENCE)
            parts.append(_review_sentence(rng, form, word, sign, strong))
        texts.append(" ".join(parts))
    return pd.DataFrame({"text": texts})


def _review_sentence(rng: np.random.Generator, form: str, word: str, sign: int, strong: int) -> str:
    degrees = _TEXTS["noun_degrees" if form == "noun" else "degrees"]
    opening = pick(rng, _TEXTS["openings"][form]).format(
        noun=pick(rng, _TEXTS["nouns"]),
        place=pick(rng, _TEXTS["places"]),
        verb=pick(rng, _TEXTS["verbs"]),
        deg=pick(rng, degrees["strong" if strong else "mild"]),
        word=word,
    )
    company = _COMPANY[sign, strong if sign else 0]
    closing = f", {pick(rng, company['closings'])}" if rng.random() < CLOSING_SHARE else ""
    return f"{' '.join(opening.split())}, {pick(rng, company['marks'])}{closing}."


def _shares(weights: pd.Series) -> np.ndarray:
    cumulative = weights.to_numpy(dtype=float).cumsum()
    return cumulative / cumulative[-1]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of `options`, all equally likely."""
    return options[rng.integers(len(options))]
