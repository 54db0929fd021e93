"""Claims and their verdicts from the tables of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lfp.claims.other import tables_of
from lfp.files.artefacts import read_table
from lfp.statistics.verdicts import FOUND, SILENT, Truth
from lfp.tables.summary.lookup import plain_value, rows_where, verdict_on

CLAIMS = Path(__file__).with_suffix(".yaml")
#: What a results file keeps of a row beside the verdict.
NUMBERS = ("estimate", "ci_low", "ci_high", "p", "p_adjusted", "n", "unit", "seeds", "method")


class ClaimError(ValueError):
    """A claim that does not name one row of its table."""


@dataclass(frozen=True)
class Claim:
    """A sentence about the default run, and the row of a table that it rests on.

    Parameters
    ----------
    name
        A short name, which other runs' results are found by.
    claim
        The sentence.
    table
        Name of the table.
    where
        Values of the row's columns, or parts of its column ``row``.
    expected, against, margin
        The side of the number on which the estimate must lie, as in
        :class:`lfp.statistics.verdicts.Truth`.
    """

    name: str
    claim: str
    table: str
    where: Mapping[str, Any]
    expected: str
    against: float
    margin: float

    @property
    def truth(self) -> Truth:
        """Where the estimate must lie."""
        return Truth(self.expected, self.against, self.margin)

    def row(self, results: Path) -> dict[str, Any] | None:
        """The row of the run in the folder `results`, or of its tables; None where it has none.

        Raises ClaimError where several rows are meant.
        """
        path = tables_of(results) / f"{self.table}.parquet"
        if not path.exists():
            return None
        frame = rows_where(read_table(path), self.where)
        if len(frame) > 1:
            raise ClaimError(
                f"lfp/claims/rows.yaml, {self.name}: {len(frame)} rows of {path} are meant,"
                " expected one; name more columns in `where`"
            )
        return frame.iloc[0].to_dict() if len(frame) else None

    def holds(self, verdict: str) -> bool:
        """Whether a row with the `verdict` says what the claim says."""
        return verdict == (SILENT if self.expected == "at" else FOUND)

    def measured(self, results: Path) -> dict[str, Any]:
        """The claim with its number and its verdict in the run in the folder `results`.

        There is no verdict where the run has no such row.
        """
        about = {
            "name": self.name, "claim": self.claim, "table": self.table, "where": dict(self.where),
            "expected": self.expected, "against": self.against, "margin": self.margin,
        }  # fmt: skip
        row = self.row(results)
        if row is None:
            return about | {"verdict": None, "holds": False}
        verdict = verdict_on(row, self.truth)
        numbers = {name: plain_value(row[name]) for name in NUMBERS}
        return about | numbers | {"verdict": verdict, "holds": self.holds(verdict)}


def claims(path: Path = CLAIMS) -> list[Claim]:
    """The claims of a file; each needs all its keys, and a name of its own."""
    entries = [Claim(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    names = [claim.name for claim in entries]
    if len(set(names)) < len(names):
        raise ClaimError(f"{path}: two claims have one name; expected a name for each")
    return entries
