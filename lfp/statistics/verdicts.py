"""Verdicts on numbers whose truth is known, by a test and by a test of equivalence."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.statistics.records.base import Record

#: Level of the tests behind a verdict.
LEVEL = 0.05
#: Confidence of the interval that two one-sided tests at the level amount to (Schuirmann 1987).
EQUIVALENCE = 1 - 2 * LEVEL

FOUND, SILENT, UNDECIDED = "found", "silent", "undecided"
FALSE_ALARM, WRONG_SIDE = "false alarm", "wrong side"
VERDICTS = (FOUND, SILENT, FALSE_ALARM, WRONG_SIDE, UNDECIDED)


@dataclass(frozen=True)
class Truth:
    """The side of the number ``value`` on which an estimate must lie.

    ``side`` is ``above``, ``below``, or ``at`` where nothing must be there. Within ``margin`` of
    the value, an estimate is as good as equal to it.
    """

    side: str
    value: float
    margin: float

    def columns(self) -> dict[str, str | float]:
        """The truth as columns of a table."""
        return {"expected": self.side, "against": self.value, "margin": self.margin}

    def verdict(self, record: Record, narrow: Record) -> str:
        """The verdict on a `record`, whose adjusted p is the one that counts.

        `narrow` is the same number with an interval of the confidence :data:`EQUIVALENCE`. A number
        is found where the test rejects and the estimate is on the right side. It is silent where
        the narrow interval lies within the margin. Where nothing must be there, silence goes first:
        a difference within the margin is as good as none, however surely it is told from 0.
        """
        tested = record.p_adjusted is not None and record.p_adjusted < LEVEL
        silent = self._within_margin(narrow)
        if self.side == "at":
            return SILENT if silent else FALSE_ALARM if tested else UNDECIDED
        if tested:
            above = record.estimate > self.value
            return FOUND if above == (self.side == "above") else WRONG_SIDE
        return SILENT if silent else UNDECIDED

    def _within_margin(self, record: Record) -> bool:
        low, high = record.ci_low, record.ci_high
        if low is None or high is None:
            return False
        return self.value - self.margin < low and high < self.value + self.margin
