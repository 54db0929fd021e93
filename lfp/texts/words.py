"""Words as they are counted, and their grammatical forms by suffix."""

from __future__ import annotations

from collections.abc import Mapping

import regex

Lexicon = Mapping[str, float]


#: A word as it is counted by explanations, fitted lexica and frequency statistics: letters of any
#: script with their marks, apostrophes and hyphens. A typographic apostrophe stands between letters
#: only, since it also closes quotations.
WORD = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d'-]*(?:\u2019\p{L}[\p{L}\p{M}\u200c\u200d'-]*)*")
#: Letters with their marks, four or more.
_LETTERS = regex.compile(r"(?:\p{L}\p{M}*){4,}")


#: Suffixes that decide a word's grammatical form; the first that fits wins.
FORM_SUFFIXES: dict[str, tuple[str, ...]] = {
    "adverb": ("ly",),
    "participle": ("ing",),
    "past": ("ed",),
    "noun": ("ness", "ment", "tion", "sion", "ity", "ance", "ence", "ship"),
    "adjective": ("ful", "less", "ous", "ive", "able", "ible", "ic", "al", "ant", "ent"),
}


def word_form(word: str) -> str | None:
    """Grammatical form of a lower-case word by its suffix; None where the suffix tells nothing."""
    if word != word.lower() or not _LETTERS.fullmatch(word):
        return None
    return next((form for form, suffixes in FORM_SUFFIXES.items() if word.endswith(suffixes)), None)


def count_words(text: str) -> list[str]:
    """Lower-cased words of `text` as fitted lexica count them (no rules for contractions)."""
    return [match.group().lower() for match in WORD.finditer(text)]
