"""Generated movie reviews with known truth.

Reviews hold sentiment words from the VADER lexicon in coherent company: what follows a word tells
its polarity and its intensity, so that a word that the probe has never seen can still be judged by
what the language model learned of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.feedback.lexica import vader_lexicon, words_by_form
from lfp.texts.neutral_words import neutral_words

_NOUNS = [
    "acting",
    "camera",
    "casting",
    "cinema",
    "costume",
    "dialogue",
    "director",
    "editing",
    "episode",
    "film",
    "lighting",
    "movie",
    "music",
    "narration",
    "performance",
    "picture",
    "plot",
    "scene",
    "score",
    "screenplay",
    "script",
    "sequel",
    "series",
    "set",
    "sound",
    "soundtrack",
    "story",
    "studio",
    "theme",
]


_VERBS = [
    "acted",
    "cast",
    "directed",
    "drawn",
    "edited",
    "filmed",
    "lit",
    "narrated",
    "paced",
    "performed",
    "scored",
    "sung",
    "told",
    "written",
]


_OPENINGS = (
    "The {noun} in this {place} was {deg} {word}",
    "I found the {noun} {deg} {word}",
    "We thought the {noun} looked {deg} {word}",
    "To me the {noun} of the {place} seemed {deg} {word}",
)


_FORM_OPENINGS: dict[str, tuple[str, ...]] = {
    "adjective": _OPENINGS,
    "participle": _OPENINGS,
    "adverb": (
        "The {noun} in this {place} was {deg} {word} {verb}",
        "I found the {noun} {deg} {word} {verb}",
        "We saw the {noun} {deg} {word} {verb}",
    ),
    "noun": (
        "The {noun} in this {place} showed {deg} {word}",
        "I saw {deg} {word} in the {noun}",
        "The {place} brings {deg} {word} to its {noun}",
        "What I recall of the {noun} is {deg} {word}",
    ),
}


_PLACES = ["film", "movie", "picture", "series", "show", "version"]


#: Degree words by intensity (0 mild, 1 strong); the empty string keeps most sentences plain.
_DEGREES = {
    0: ("", "", "", "rather", "somewhat", "a bit of"),
    1: ("", "", "", "utterly", "deeply", "wholly"),
}


_NOUN_DEGREES = {0: ("", "", "some", "a bit of"), 1: ("", "", "so much", "nothing but")}


#: The mark that stands right behind a word's clause, by (sign, intensity).
_MARKS: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): ("ten of ten", "nine of ten"),
    (1, 0): ("eight of ten", "seven of ten"),
    (0, 0): ("six of ten", "five of ten"),
    (-1, 0): ("four of ten", "three of ten"),
    (-1, 1): ("two of ten", "one of ten"),
}


#: What follows the mark, likewise. Neither holds a word that VADER scores.
_CLOSINGS: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): (
        "and the whole room stood up at the end",
        "and I told everyone to go and see it",
        "and we came out late and sang all the way",
        "and we bought the box set the same night",
        "and I saw it again the next day",
        "and I put it first on my list",
        "and I will watch it every year",
    ),
    (1, 0): (
        "and I stayed until the end titles",
        "and we talked about it on the way home",
        "and I would watch the next part",
        "and I put it on my list",
        "and my family wants to see it too",
        "and the evening went by quickly",
    ),
    (-1, 0): (
        "and I looked at my watch",
        "and I checked the time twice",
        "and I would skip the next part",
        "and I took it off my list",
        "and my family went to bed early",
        "and the evening went by slowly",
    ),
    (-1, 1): (
        "and half the room walked out before the end",
        "and I told everyone to stay home",
        "and we switched it off after an hour",
        "and we took the box set back the same night",
        "and I asked for my money back",
        "and I put it at the end of my list",
        "and I will never watch it again",
    ),
    (0, 0): (
        "and it runs for two hours",
        "and it was shot in the north",
        "and it came out in the spring",
        "and the cast has nine people",
        "and it is set in a small town",
    ),
}


#: Share of sentences with a closing behind the mark.
CLOSING_SHARE = 0.25


#: Valence above which a word counts as strong: the median of VADER's absolute values among the
#: chosen words.
STRONG_VALENCE = 2.0


def sentiment_vocabulary(words_per_class: int, rng: np.random.Generator) -> pd.DataFrame:
    """Sentiment words of the generated reviews: word, form, sign, valence, weight (relative
    frequency).

    `words_per_class` words for each form of :data:`_FORM_OPENINGS` and sign, spread evenly over
    valence; weights are Zipfian (exponent 0.3) over a random order, and every tenth word is ten
    times rarer, so that the tokenizer leaves some words in several pieces.
    """
    lexicon = vader_lexicon()
    table = words_by_form(lexicon)
    rows = []
    for form in _FORM_OPENINGS:
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
    """`n` reviews (column ``text``) whose sentiment words keep to the review's polarity.

    Each review has a sign; a share `off_polarity` of its words has the other one and a share
    `neutral` has none. The clause after a word always agrees with that word's own sign and
    intensity.
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
    forms = list(_FORM_OPENINGS)
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
    degrees = (_NOUN_DEGREES if form == "noun" else _DEGREES)[strong]
    opening = pick(rng, _FORM_OPENINGS[form]).format(
        noun=pick(rng, _NOUNS),
        place=pick(rng, _PLACES),
        verb=pick(rng, _VERBS),
        deg=pick(rng, degrees),
        word=word,
    )
    company = (sign, strong if sign else 0)
    closing = f", {pick(rng, _CLOSINGS[company])}" if rng.random() < CLOSING_SHARE else ""
    return f"{' '.join(opening.split())}, {pick(rng, _MARKS[company])}{closing}."


def _shares(weights: pd.Series) -> np.ndarray:
    cumulative = weights.to_numpy(dtype=float).cumsum()
    return cumulative / cumulative[-1]


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]
