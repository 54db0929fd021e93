"""What jobs show on a terminal: progress bars that their logs show too, and text that cannot steer
it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from typing import Any

from tqdm import tqdm

#: Seconds between two lines of a bar in the log.
EVERY = 30.0
#: Control characters but for tab and newline, the marks that turn a line's direction, and line
#: separators.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` with control characters written out, as in ``\\x1b[31m``: text of data or models moves
    no cursor.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Progress(tqdm):
    """A tqdm bar in the terminal; the same bar as a line of the log every half minute and at its
    end.

    Where there is no terminal, the log alone has it. Takes the arguments of tqdm.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._logged = time.monotonic()
        self._nowhere = None if sys.stderr.isatty() else open(os.devnull, "w")  # noqa: PTH123, SIM115
        super().__init__(
            *args, file=self._nowhere or sys.stderr, mininterval=0.5, ascii=True, **options
        )

    def display(self, *args: Any, **options: Any) -> Any:
        """Draw the bar, and log it where it is time to."""
        if time.monotonic() - self._logged >= EVERY:
            self.log()
        return super().display(*args, **options)

    def log(self) -> None:
        """One line of the log."""
        self._logged = time.monotonic()
        logging.getLogger("progress").info("%s", self)

    def close(self) -> None:
        """Log how far it came and take the bar off."""
        if not self.disable:
            self.log()
        super().close()
        if self._nowhere:
            self._nowhere.close()
            self._nowhere = None
