"""A run held against the committed results of another machine, claim by claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfp.statistics.verdicts import UNDECIDED

BOTH, NEITHER = "holds on both", "holds on neither"
FLIPS, ABSENT = "flips", "not in both runs"


@dataclass(frozen=True)
class Compared:
    """One claim in the committed results and in the run at hand, and the outcome."""

    there: Mapping[str, Any]
    here: Mapping[str, Any]
    outcome: str

    @property
    def is_lost(self) -> bool:
        """Whether the claim stands in the committed results, and flips or has no number here."""
        return self.outcome in (FLIPS, ABSENT) and self.there["holds"]

    def line(self) -> str:
        """The outcome with both numbers, in one line."""
        numbers = f"{number(self.there)} there, {number(self.here)} here"
        return f"{self.outcome:<17} {self.here['name']}: {self.here['claim']} {numbers}"


def compared(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[Compared]:
    """The claims of the run `here` beside those of the committed results `there`."""
    committed = {claim["name"]: claim for claim in there["claims"]}
    nothing = {"verdict": None, "holds": False}
    pairs = [(committed.get(claim["name"], nothing), claim) for claim in here["claims"]]
    return [Compared(a, b, outcome(a, b)) for a, b in pairs]


def outcome(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The outcome of a claim in two runs.

    A claim flips where it holds in one run, and where in the other one either a verdict says the
    contrary or the estimate lies on the other side. Where the other run has too little to say, it
    is undecided there or here.
    """
    if there["verdict"] is None or here["verdict"] is None:
        return ABSENT
    if there["holds"] == here["holds"]:
        return BOTH if here["holds"] else NEITHER
    open_one, place = (here, "here") if there["holds"] else (there, "there")
    if open_one["verdict"] != UNDECIDED or _on_the_other_side(open_one):
        return FLIPS
    return f"undecided {place}"


def _on_the_other_side(claim: Mapping[str, Any]) -> bool:
    """Whether the estimate of a claim contradicts it, whatever the interval says."""
    if claim["estimate"] is None:
        return False
    distance = claim["estimate"] - claim["against"]
    if claim["expected"] == "at":
        return abs(distance) > claim["margin"]
    return distance <= 0 if claim["expected"] == "above" else distance >= 0


def number(claim: Mapping[str, Any]) -> str:
    """The estimate of a claim with its interval, as text."""
    if claim.get("estimate") is None:
        return "no number"
    text = f"{claim['estimate']:.3f}"
    if claim["ci_low"] is None:
        return text
    return f"{text} [{claim['ci_low']:.3f}, {claim['ci_high']:.3f}]"
