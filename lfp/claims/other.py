"""The folder of another run, which a run is held against, and whether it can be.

Planning reads this module, so it loads no library of science; the heads of the tables are read
where a comparison is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Columns without which a table has no rows that can be compared: those of its records.
NEEDED = (
    "estimate", "ci_low", "ci_high", "n", "unit", "method", "seeds", "p", "p_adjusted",
)  # fmt: skip
_EXPECTED = "give the `results` folder of another run, or its `tables` folder"


class OtherRunError(ValueError):
    """A folder that is no run that can be compared."""


@dataclass(frozen=True)
class OtherRun:
    """The files of another run: its tables as Parquet, and its ``provenance.json`` or none."""

    tables: list[str]
    provenance: list[str]


def tables_of(folder: str | Path) -> Path:
    """The folder of a run's tables: ``tables`` in its results, or `folder` itself."""
    inside = Path(folder) / "tables"
    return inside if inside.is_dir() else Path(folder)


def other_run(path: str) -> OtherRun:
    """The files of the run in the folder `path`.

    Raises
    ------
    OtherRunError
        Where there is no such folder, or one without tables of records.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        raise OtherRunError(f"{folder} is not there; {_EXPECTED}")
    if not folder.is_dir():
        raise OtherRunError(f"{folder} is a file; {_EXPECTED}")
    tables = sorted(tables_of(folder).glob("*.parquet"))
    if not tables:
        raise OtherRunError(
            f"{tables_of(folder)} has no table as Parquet (*.parquet); {_EXPECTED}, once the target"
            " `tables` was made there"
        )
    for table in tables:
        _check_columns(table)
    recorded = tables_of(folder).parent / "provenance.json"
    return OtherRun([str(table) for table in tables], [str(recorded)] * recorded.is_file())


def _check_columns(table: Path) -> None:
    """Raise OtherRunError where a Parquet file is none, or has no records."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        columns = pq.read_schema(table).names
    except (ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise OtherRunError(
            f"{table} cannot be read as Parquet ({what}); copy it again, or remove it"
        ) from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise OtherRunError(
            f"{table} has no column {', '.join(missing)}: it is of an older release, or no table of"
            f" this workflow; expected {', '.join(NEEDED)}. Make the tables there again with this"
            " release, or remove the file"
        )
