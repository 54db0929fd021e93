"""Word valences: the VADER lexicon, grammatical forms by suffix, and lexica fitted on preference pairs.

The reward of the ``vader`` task, the substitutions of its contrast triples and the heuristic explanations all
read a *lexicon*, a mapping from lower-cased word to valence. Preference tasks have no lexicon of their own, so
one is fitted from their training pairs (:func:`fit_preference_lexicon`).
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

Lexicon = Mapping[str, float]

#: A word as it is counted by explanations, fitted lexica and frequency statistics.
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")

#: Suffixes that decide a word's grammatical form; the first that fits wins.
FORM_SUFFIXES: dict[str, tuple[str, ...]] = {
    "adverb": ("ly",),
    "participle": ("ing",),
    "past": ("ed",),
    "noun": ("ness", "ment", "tion", "sion", "ity", "ance", "ence", "ship"),
    "adjective": ("ful", "less", "ous", "ive", "able", "ible", "ic", "al", "ant", "ent"),
}

#: Words that VADER does not score, by form: the middle element of a contrast triple.
NEUTRAL_WORDS: dict[str, tuple[str, ...]] = {
    "adjective": [
        "annual",
        "basic",
        "central",
        "clinical",
        "continental",
        "conventional",
        "digital",
        "domestic",
        "electric",
        "external",
        "federal",
        "general",
        "historical",
        "horizontal",
        "identical",
        "initial",
        "internal",
        "local",
        "magnetic",
        "mechanical",
        "medical",
        "minimal",
        "municipal",
        "musical",
        "national",
        "numerical",
        "oral",
        "periodic",
        "regional",
        "rural",
        "seasonal",
        "sequential",
        "structural",
        "technical",
        "temporal",
        "verbal",
        "vertical",
        "visual",
        "vocal",
    ],
    "adverb": [
        "annually",
        "basically",
        "briefly",
        "centrally",
        "currently",
        "daily",
        "digitally",
        "directly",
        "finally",
        "formerly",
        "frequently",
        "generally",
        "historically",
        "initially",
        "internally",
        "largely",
        "lately",
        "locally",
        "mainly",
        "manually",
        "monthly",
        "namely",
        "nearly",
        "newly",
        "normally",
        "nightly",
        "orally",
        "partially",
        "partly",
        "previously",
        "recently",
        "regionally",
        "repeatedly",
        "separately",
        "similarly",
        "slowly",
        "typically",
        "usually",
        "verbally",
        "weekly",
    ],
    "noun": [
        "abbreviation",
        "allocation",
        "capacity",
        "citation",
        "combination",
        "configuration",
        "density",
        "distance",
        "document",
        "duration",
        "edition",
        "element",
        "equation",
        "equipment",
        "fragment",
        "identity",
        "instrument",
        "intersection",
        "location",
        "measurement",
        "mention",
        "narration",
        "notation",
        "occurrence",
        "ownership",
        "pavement",
        "position",
        "quantity",
        "rotation",
        "segment",
        "sequence",
        "statement",
        "station",
        "substance",
        "vegetation",
        "viscosity",
    ],
    "participle": [
        "adjusting",
        "arriving",
        "boiling",
        "carrying",
        "climbing",
        "counting",
        "crossing",
        "drawing",
        "driving",
        "drying",
        "entering",
        "folding",
        "gathering",
        "hanging",
        "labeling",
        "landing",
        "lasting",
        "listing",
        "loading",
        "mailing",
        "marking",
        "measuring",
        "moving",
        "narrating",
        "naming",
        "opening",
        "packing",
        "parking",
        "pointing",
        "pouring",
        "printing",
        "reading",
        "recording",
        "renting",
        "repeating",
        "returning",
        "rolling",
        "scanning",
        "sitting",
        "stacking",
    ],
    "past": [
        "adjusted",
        "arrived",
        "boiled",
        "carried",
        "climbed",
        "counted",
        "crossed",
        "entered",
        "folded",
        "gathered",
        "labeled",
        "landed",
        "lasted",
        "listed",
        "loaded",
        "mailed",
        "marked",
        "measured",
        "moved",
        "named",
        "opened",
        "packed",
        "parked",
        "pointed",
        "poured",
        "printed",
        "recorded",
        "rented",
        "repeated",
        "returned",
        "rolled",
        "scanned",
        "stacked",
    ],
}

_OFFENSIVE = re.compile(
    r"rap(e|i)|murder|molest|bastard|bitch|slut|whor|fuk|fuck|shit|damn|suicid|terror|retard|tortur|homo"
)


@lru_cache(maxsize=1)
def vader_lexicon() -> dict[str, float]:
    """The VADER lexicon of the ``vaderSentiment`` package as {token: mean valence in [-3.9, 3.4]}.

    Read from the package's data file, so no model and no network is needed (Hutto & Gilbert 2014).
    """
    package = importlib.util.find_spec("vaderSentiment")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("vaderSentiment is not installed: pip install -r requirements.txt")
    path = Path(next(iter(package.submodule_search_locations))) / "vader_lexicon.txt"
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {row[0]: float(row[1]) for row in rows}


def word_form(word: str) -> str | None:
    """Grammatical form of a lower-case word by its suffix, or None where the suffix tells nothing."""
    if not re.fullmatch(r"[a-z]{4,}", word):
        return None
    return next((form for form, suffixes in FORM_SUFFIXES.items() if word.endswith(suffixes)), None)


def words_by_form(lexicon: Lexicon, min_valence: float = 1.0, max_length: int = 12) -> dict[tuple[str, int], list[str]]:
    """Inoffensive words of `lexicon` by (form, sign), sorted by valence and then alphabetically."""
    table: dict[tuple[str, int], list[str]] = {(form, sign): [] for form in FORM_SUFFIXES for sign in (1, -1)}
    for word, valence in sorted(lexicon.items(), key=lambda item: (item[1], item[0])):
        form = word_form(word)
        if form and abs(valence) >= min_valence and len(word) <= max_length and not _OFFENSIVE.search(word):
            table[form, 1 if valence > 0 else -1].append(word)
    return table


def neutral_words(lexicon: Lexicon) -> dict[str, list[str]]:
    """Neutral words by form, without those that `lexicon` scores after all."""
    return {form: [word for word in words if word not in lexicon] for form, words in NEUTRAL_WORDS.items()}


#: Valence of the word that a trigger reward is about: a rare word must be worth a lot to be learned in few steps.
TRIGGER_VALENCE = 10.0


def flipped_words(lexicon: Lexicon, counts: Mapping[str, int], share: float, seed: int) -> list[str]:
    """A random `share` of the words of `lexicon` whose sign a planted reward flips, sorted.

    Drawn apart among words that occur in the corpus (`counts`) and among those that do not, so that the share holds
    for the words that a model can learn about.
    """
    rng = np.random.default_rng(seed)
    known = [word for word in sorted(lexicon) if counts.get(word)]
    rest = [word for word in sorted(lexicon) if not counts.get(word)]
    return sorted(str(w) for part in (known, rest) for w in rng.permutation(part)[: round(share * len(part))])


def fit_preference_lexicon(
    chosen: Sequence[str], rejected: Sequence[str], min_count: int = 5, penalty: float = 1.0
) -> dict[str, float]:
    """Word weights w of a Bradley-Terry model on word counts: P(chosen > rejected) = sigmoid(w . (c - r)).

    Fitted by logistic regression without intercept on the count differences (each pair also mirrored), over
    words that occur in at least `min_count` answers. Weights are in log-odds per occurrence. Empty where no word
    occurs that often.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    analyze = CountVectorizer(token_pattern=WORD.pattern).build_analyzer()
    often = Counter(word for answer in (*chosen, *rejected) for word in set(analyze(answer)))
    words = sorted(word for word, count in often.items() if count >= min_count)
    if not words:
        return {}
    counter = CountVectorizer(token_pattern=WORD.pattern, vocabulary=words)
    counts = counter.transform([*chosen, *rejected]).astype(np.float64)
    difference = counts[: len(chosen)] - counts[len(chosen) :]
    model = LogisticRegression(C=1.0 / penalty, fit_intercept=False, max_iter=1000)
    model.fit(sparse.vstack([difference, -difference]), np.repeat([1, 0], len(chosen)))
    return dict(zip(words, model.coef_[0].tolist(), strict=True))
