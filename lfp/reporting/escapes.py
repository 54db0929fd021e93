"""Text that cannot steer a terminal."""

from __future__ import annotations

import re

#: Control characters but for tab and newline, the marks that turn a line's direction, and line
#: separators.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` with control characters written out, as in ``\\x1b[31m``: text of data or models moves
    no cursor.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
