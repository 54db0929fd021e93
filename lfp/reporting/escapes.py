"""Text that cannot steer a terminal."""

from __future__ import annotations

import re

#: Control characters except tab and newline, marks that turn a line's direction, and separators
#: of lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` with its control characters written out, as in ``\\x1b[31m``.

    So text of data or models moves no cursor.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
