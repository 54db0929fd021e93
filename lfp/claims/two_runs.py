"""Two runs side by side: their files, and the page that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.claims.comparison import (
    ABSENT,
    BOTH,
    FLIPS,
    NEITHER,
    Compared,
    compared,
    number,
)
from lfp.claims.differences import confidence, facts, settings
from lfp.claims.moves import DISJOINT, EQUAL, HERE_ALONE, THERE_ALONE, Moves, moves
from lfp.claims.rows import Claim, ClaimError, claims
from lfp.files.artefacts import read_json, read_table
from lfp.statistics.verdicts import VERDICTS
from lfp.tables.pages.columns import interval
from lfp.tables.pages.page import Section, page

#: Most rows that the page lists; the data files have all.
LISTED = 1000
#: The name of the claims among the tables.
CLAIMS = "claims"
_UNEQUAL = "Rows of both runs that are not equal"
_TITLE = (
    "Two runs side by side: {disjoint} of {both} rows of both have intervals that do not overlap,"
    " and {flips} of {claims} claims of both flip."
)
_RULE = (
    "A row is disjoint where the two intervals do not overlap, and outside where they do but an"
    " estimate lies outside the other run's interval; standard_errors is the difference, here minus"
    " there, over the root of the two squared standard errors, which are half intervals over the"
    " quantile of t, or of the normal distribution where their method is no t interval. Rows"
    " without an interval in either run are listed behind these, by the share that the difference"
    " has in the larger number. An interval holds what its unit varies: over words or prompts it"
    " says nothing of another fine-tuning."
)


@dataclass(frozen=True)
class Run:
    """A run that is compared.

    Parameters
    ----------
    tables
        Tables by name.
    claims
        The claims with their numbers in the run.
    provenance
        What its ``provenance.json`` says; empty without that file.
    """

    tables: Mapping[str, pd.DataFrame]
    claims: Sequence[Mapping[str, Any]]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class TwoRuns:
    """The comparison of the run at hand, here, with another one, there."""

    here: Run
    there: Run
    claims: Sequence[Compared]
    moves: Moves


def read_run(tables: Sequence[str], provenance: Sequence[str]) -> Run:
    """A run from the paths of its tables, and of its ``provenance.json`` where it has one."""
    frames = {Path(path).stem: read_table(path) for path in tables}
    recorded = read_json(provenance[0]) if provenance else {}
    folder = Path(tables[0]).parent
    return Run(frames, [_measured(claim, folder) for claim in claims()], recorded)


def _measured(claim: Claim, folder: Path) -> dict[str, Any]:
    """A claim with its number and verdict.

    It has none where it means several rows, as in another configuration, or where the run judged by
    other words, as an older release did.
    """
    nothing = {**vars(claim), "verdict": None, "holds": False}
    try:
        measured = claim.measured(folder)
    except ClaimError:
        return nothing
    return measured if measured["verdict"] in VERDICTS else nothing


def two_runs(here: Run, there: Run, level: float) -> TwoRuns:
    """The comparison of two runs; `level` is the coverage of intervals where a run says none."""
    tables = [{CLAIMS: _claims_table(run.claims), **run.tables} for run in (here, there)]
    levels = tuple(confidence(run.provenance, level) for run in (here, there))
    pairs = compared({"claims": there.claims}, {"claims": here.claims})
    return TwoRuns(here, there, pairs, moves(tables[0], tables[1], levels))


def _claims_table(measured: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The claims that a run has a number for, as a table."""
    numbers = ["estimate", "ci_low", "ci_high", "n", "unit", "method"]
    rows = [
        {"claim": claim["name"], **{name: claim[name] for name in numbers}}
        | {"answer": claim["verdict"]}
        for claim in measured
        if claim["verdict"] is not None
    ]
    return pd.DataFrame(rows, columns=["claim", *numbers, "answer"])


def comparison_page(runs: TwoRuns, folders: tuple[str, str]) -> str:
    """The page of a comparison; `folders` are the places of the run here and the one there."""
    rows = runs.moves.rows
    counts = rows.loc[rows["table"] != CLAIMS, "move"].value_counts()
    both = counts.drop([HERE_ALONE, THERE_ALONE], errors="ignore").sum()
    outcomes = [pair.outcome for pair in runs.claims if pair.outcome != ABSENT]
    title = _TITLE.format(
        disjoint=counts.get(DISJOINT, 0), both=both,
        flips=outcomes.count(FLIPS), claims=len(outcomes),
    )  # fmt: skip
    moved = rows[~rows["move"].isin([EQUAL, HERE_ALONE, THERE_ALONE])]
    moved = moved[moved["table"] != CLAIMS]
    alone = rows[rows["move"].isin([HERE_ALONE, THERE_ALONE])]
    alone_by = ["table", "row", "move"]
    where = pd.DataFrame([("folder", *folders)], columns=["fact", "here", "there"])
    here, there = runs.here.provenance, runs.there.provenance
    return page(
        f"{title} {_RULE}",
        [
            _fixed("The runs", pd.concat([where, facts(here, there)])),
            _fixed("Claims", _claims_shown(runs.claims)),
            _shown(moved),
            _fixed("Rows by table", runs.moves.counts()),
            _fixed("Settings that differ", settings(here, there)),
            _fixed("Tables that are not compared", _left_out(runs.moves.left_out)),
            _listed("Rows of one run alone", alone[alone_by], alone_by),
        ],
    )


def _fixed(title: str, frame: pd.DataFrame) -> Section:
    """A table that shows all its columns."""
    return Section(frame, title, decisive=tuple(frame.columns))


def _listed(title: str, frame: pd.DataFrame, first: Sequence[str]) -> Section:
    """The first rows of a table, with these columns in front."""
    more = f"The first {LISTED} of {len(frame)} rows; the data files beside this page have all."
    return Section(frame.head(LISTED), title, more if len(frame) > LISTED else "", first)


def _left_out(tables: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(tables.items()), columns=["table", "reason"])


def _claims_shown(pairs: Sequence[Compared]) -> pd.DataFrame:
    """The claims of both runs, those that flip first.

    Their names are those of the rows in the table of claims.
    """
    order = [FLIPS, "undecided here", "undecided there", BOTH, NEITHER, ABSENT]
    rows = [
        {
            "outcome": pair.outcome, "name": pair.here["name"], "claim": pair.here["claim"],
            "truth": f"{pair.here['expected']} {pair.here['against']:g}",
            "verdict_here": pair.here["verdict"], "estimate_here": number(pair.here),
            "verdict_there": pair.there["verdict"], "estimate_there": number(pair.there),
        }
        for pair in sorted(pairs, key=lambda pair: order.index(pair.outcome))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _shown(rows: pd.DataFrame) -> Section:
    """The first rows of both runs, with what the page says of them."""
    numbers: dict[str, Any] = {}
    for side in ("here", "there"):
        ends = zip(rows[f"ci_low_{side}"], rows[f"ci_high_{side}"], strict=True)
        numbers[f"estimate_{side}"] = rows[f"estimate_{side}"]
        numbers[f"interval_{side}"] = [interval(low, high) for low, high in ends]
    first = ["table", "row", "move", "standard_errors", "difference", *numbers]
    others = ["unit", "n_here", "n_there", "verdict_here", "verdict_there"]
    return _listed(_UNEQUAL, rows.assign(**numbers)[[*first, *others]], first)
