"""Training curves as they come, for TensorBoard, where the configuration asks for it
(``tensorboard: true``).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

#: Folder of a job's event files; set by the job where they are wanted. transformers' trainers read
#: the same variable.
FOLDER = "TENSORBOARD_LOGGING_DIR"


def report_to() -> str:
    """What a transformers trainer is to report to."""
    return "tensorboard" if os.environ.get(FOLDER) else "none"


class Tracker:
    """Writes rows of a training curve as TensorBoard events; nothing where no folder is set."""

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
        """Write what is waiting."""
        if self._writer:
            self._writer.close()
            self._writer = None
