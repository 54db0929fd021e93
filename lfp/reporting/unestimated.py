"""The rows of a run's tables that hold no number, as the last lines on the terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from lfp.reporting.escapes import plain

#: The beginning of the ``method`` of a row without a number (``lfp.statistics.records``).
REASON = "not estimated: "
#: Columns that name the cell of a row, in the order of its address.
CELL = ("model", "task", "seed", "sae")


def lines(tables: Iterable[str | Path], since: float) -> list[str]:
    """A line for every cell and reason in `tables`, CSV files, with the number of rows behind it.

    A table without rows has a line as well. The list is empty where no table was written at or
    after `since`, seconds since the epoch, so that a command which makes no table prints nothing.
    """
    files = [path for path in map(Path, tables) if path.exists()]
    if not any(path.stat().st_mtime >= since for path in files):
        return []
    counted = [line for path in files for line in _lines(path)]
    head = "rows without a number; the column `method` of results/tables/ has the reason of each:"
    return [head, *counted] if counted else []


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        yield f"  {path.stem}: no row, no cell of the configuration has anything to show in it"
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.get("method", "").startswith(REASON):
            cell = "/".join(row[name] for name in CELL if row.get(name))
            key = (cell, " ".join(row["method"].removeprefix(REASON).split()))
            counts[key] = counts.get(key, 0) + 1
    for (cell, reason), count in counts.items():
        number = "1 row" if count == 1 else f"{count} rows"
        yield plain(f"  {path.stem}, {cell or 'all cells'}: {number}, {reason}")
