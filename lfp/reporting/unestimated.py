"""The last lines of a run on the terminal: rows of its tables that hold no number, or fail a gate.

A row fails its gate where its column ``passes`` is false.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    rows = {path: _read(path) for path in files}
    counted = [line for path in files for line in _lines(path, rows[path])]
    failed = [line for path in files for line in _failures(path, rows[path])]
    head = "rows without a number; the column `method` of results/tables/ has the reason of each:"
    gate = "not healthy (docs/autoencoders.md, finetune.md and locus.md say what it means there):"
    return [*([head, *counted] if counted else []), *([gate, *failed] if failed else [])]


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _cell(row: Mapping[str, str]) -> str:
    """The address of a row's cell, as the folders of results have it."""
    parts = {name: row[name] for name in CELL if row.get(name)}
    if "seed" in parts:
        parts["seed"] = f"seed{parts['seed']}"
    return "/".join(parts.values()) or "all cells"


def _failures(path: Path, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A line for every quantity of a cell that fails its gate somewhere, with its worst value."""
    failed: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        if row.get("passes") == "False":
            failed.setdefault((_cell(row), row["quantity"]), []).append(row)
    for (cell, quantity), group in failed.items():
        threshold = float(group[0]["threshold"])
        worst = max(
            (row for row in group if row["estimate"]),
            key=lambda row: abs(float(row["estimate"]) - threshold),
            default=None,
        )
        value = "no value" if worst is None else _with_interval(worst)
        number = "1 row" if len(group) == 1 else f"{len(group)} rows"
        yield plain(
            f"  {path.stem}, {cell}: {quantity} {value}, threshold {threshold:g} ({number})"
        )


def _with_interval(row: Mapping[str, str]) -> str:
    """The estimate of a row, with its interval where it has one."""
    bounds = [f"{float(row[name]):.3g}" for name in ("ci_low", "ci_high") if row.get(name)]
    return f"{float(row['estimate']):.3g}" + (f" [{', '.join(bounds)}]" if bounds else "")


def _lines(path: Path, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    if not rows:
        yield f"  {path.stem}: no row, no cell of the configuration has anything to show in it"
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.get("method", "").startswith(REASON):
            key = (_cell(row), " ".join(row["method"].removeprefix(REASON).split()))
            counts[key] = counts.get(key, 0) + 1
    for (cell, reason), count in counts.items():
        number = "1 row" if count == 1 else f"{count} rows"
        yield plain(f"  {path.stem}, {cell}: {number}, {reason}")
