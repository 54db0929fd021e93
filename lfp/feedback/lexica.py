"""Lexica, mappings from lower-cased word to valence: VADER's, and those fitted on preference pairs.

The reward of the ``vader`` task, the substitutions of its contrast triples and the heuristic
explanations all read a lexicon. Preference tasks have none of their own, so one is fitted from
their training pairs (:func:`fit_preference_lexicon`).
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lfp.texts.words import FORM_SUFFIXES, WORD, Lexicon, word_form

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
        raise ModuleNotFoundError(
            "vaderSentiment is not installed: pip install -r requirements.txt"
        )
    path = Path(next(iter(package.submodule_search_locations))) / "vader_lexicon.txt"
    rows = (
        line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    )
    return {row[0]: float(row[1]) for row in rows}


def words_by_form(
    lexicon: Lexicon, min_valence: float = 1.0, max_length: int = 12
) -> dict[tuple[str, int], list[str]]:
    """Inoffensive words of `lexicon` by (form, sign), sorted by valence and then alphabetically."""
    table: dict[tuple[str, int], list[str]] = {
        (form, sign): [] for form in FORM_SUFFIXES for sign in (1, -1)
    }
    for word, valence in sorted(lexicon.items(), key=lambda item: (item[1], item[0])):
        form = word_form(word)
        if (
            form
            and abs(valence) >= min_valence
            and len(word) <= max_length
            and not _OFFENSIVE.search(word)
        ):
            table[form, 1 if valence > 0 else -1].append(word)
    return table


def fit_preference_lexicon(
    chosen: Sequence[str], rejected: Sequence[str], min_count: int = 5, penalty: float = 1.0
) -> dict[str, float]:
    """Word weights w of a Bradley-Terry model on word counts: P(chosen > rejected) = sigmoid(w . (c
    - r)).

    Fitted by logistic regression without intercept on the count differences (each pair also
    mirrored), over words that occur in at least `min_count` answers. Weights are in log-odds per
    occurrence. Empty where no word occurs that often.
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
