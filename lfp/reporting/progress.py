"""Progress bars of jobs, on a terminal and in their logs."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

#: Seconds between two lines of a bar in the log.
EVERY = 30.0


class Progress(tqdm):
    """A tqdm bar in the terminal and, every half minute and at its end, a line of the log.

    Where there is no terminal, the log alone has it. It takes the arguments of tqdm.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._logged = time.monotonic()
        self._nowhere = None if sys.stderr.isatty() else Path(os.devnull).open("w")  # noqa: SIM115
        super().__init__(
            *args, file=self._nowhere or sys.stderr, mininterval=0.5, ascii=True, **options
        )

    def display(self, *args: Any, **options: Any) -> Any:
        """Draw the bar, and log it where half a minute has passed."""
        if time.monotonic() - self._logged >= EVERY:
            self.log()
        return super().display(*args, **options)

    def log(self) -> None:
        """Write the bar as one line of the log."""
        self._logged = time.monotonic()
        logging.getLogger("progress").info("%s", self)

    def close(self) -> None:
        """Log the final state of the bar and remove it from the terminal."""
        if not self.disable:
            self.log()
        super().close()
        if self._nowhere:
            self._nowhere.close()
            self._nowhere = None
