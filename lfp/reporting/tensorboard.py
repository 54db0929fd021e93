"""Training curves for TensorBoard, row by row.

They are written where the configuration asks for it (``tensorboard: true``).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

#: Folder of a job's event files; set by the job where events are wanted. The trainers of
#: transformers read the same variable.
FOLDER = "TENSORBOARD_LOGGING_DIR"


def report_to() -> str:
    """The integrations that a transformers trainer reports to."""
    return "tensorboard" if os.environ.get(FOLDER) else "none"


class Tracker:
    """A writer of TensorBoard events; it writes none where no folder is set."""

    def __init__(self) -> None:
        self._writer = None
        if os.environ.get(FOLDER):
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(os.environ[FOLDER], flush_secs=10)
            atexit.register(self.close)  # events wait in a queue

    def add(self, row: Mapping[str, Any], group: str = "") -> None:
        """Write the numbers of a row at its ``step``, with a `group` in front of their names."""
        if self._writer:
            for name, value in row.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(
                        f"{group}/{name}" if group else name, value, row["step"]
                    )

    def close(self) -> None:
        """Write the events that are waiting."""
        if self._writer:
            self._writer.close()
            self._writer = None
