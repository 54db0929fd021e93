"""Keys of services, which no log, no answer and no message may show."""

from __future__ import annotations

import os
from collections.abc import Iterable

#: Shorter keys are no secrets, and neither are words below the second length.
_SHORTEST, _LONGEST_WORD = 8, 15


def key_in(variable: str | None) -> str:
    """The key in an environment variable, without the ends of its line; nothing where none is."""
    return os.environ.get(variable, "").strip() if variable else ""


def is_secret(key: str) -> bool:
    """Whether a key is a secret, and not a placeholder for a server that wants any key.

    Placeholders are words ("anything", "not-needed", "local") that stand in answers as well. A
    secret has at least 16 characters, or at least 8 with letters and digits among them.
    """
    mixed = any(map(str.isalpha, key)) and any(map(str.isdigit, key))
    return len(key) > _LONGEST_WORD or (len(key) >= _SHORTEST and mixed)


def without_keys(text: str, keys: Iterable[str]) -> str:
    """`text` with stars in place of those `keys` that are secrets."""
    for key in sorted(filter(is_secret, keys), key=len, reverse=True):
        text = text.replace(key, "***")
    return text
