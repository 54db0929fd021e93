"""The log of a job.

Everything is in its file, an error is one line on the terminal, and keys of services are in
neither.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
from pathlib import Path
from types import TracebackType

from lfp.reporting.escapes import plain
from lfp.reporting.keys import key_in, without_keys


def _redacted(text: str) -> str:
    """`text` without the keys of the configured services, which servers repeat in refusals."""
    services = json.loads(os.environ.get("LFP_SERVICES", "{}")).values()
    return without_keys(text, [key_in(service.get("api_key_env")) for service in services])


class _Formatter(logging.Formatter):
    """Lines, and tracebacks behind them, without keys and without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(_redacted(super().format(record)))


def start(path: str | None) -> None:
    """Send the log to `path`, and one line per error to the terminal.

    The traceback is in the log.
    """
    handlers: list[logging.Handler] = []
    if path and os.environ.get("RANK", "0") == "0":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
    for handler in handlers or [logging.StreamHandler()]:
        handler.setFormatter(_Formatter("%(asctime)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        logging.getLogger("job").error("failed", exc_info=(kind, error, trace))
        if path and getattr(error, "curve", None):
            print(
                f"the curve until then:"
                f" {_write_curve(Path(path).with_suffix('.curve.csv'), error.curve)}",
                file=sys.stderr,
            )
        print(
            plain(_redacted(f"error: {kind.__name__}: {error}"))
            + (f" (log: {path})" if path else ""),
            file=sys.stderr,
        )

    sys.excepthook = report


def _write_curve(path: Path, curve: list[dict[str, float]]) -> Path:
    """Keep the curve of training that went astray."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in curve for name in row)))
        writer.writeheader()
        writer.writerows(curve)
    return path
