"""The VADER lexicon, a mapping from lower-cased word to valence, and its words by form.

The reward of the ``vader`` task, the substitutions of its contrast triples and the heuristic
explanations all read a lexicon.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from lfp.texts.words import FORM_SUFFIXES, Lexicon, word_form

_OFFENSIVE = re.compile(
    r"rap(e|i)|murder|molest|bastard|bitch|slut|whor|fuk|fuck|shit|damn|suicid|terror|retard"
    r"|tortur|homo"
)


@lru_cache(maxsize=1)
def vader_lexicon() -> dict[str, float]:
    """The VADER lexicon of the ``vaderSentiment`` package as {token: mean valence in [-3.9, 3.4]}.

    It is read from the package's data file, so that no model and no network is needed (Hutto &
    Gilbert 2014).
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
