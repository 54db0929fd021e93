"""The questions of the summary, from the file beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lfp.statistics.records.base import Record
from lfp.statistics.verdicts import FALSE_ALARM, FOUND, SILENT, UNDECIDED, WRONG_SIDE, Truth
from lfp.tables.summary.lookup import verdict_on

QUESTIONS = Path(__file__).with_suffix(".yaml")
YES, NO, CONTRARY, OPEN = "yes", "no", "contrary", "undecided"
#: An answer that is a statement and no verdict.
FACT = "fact"
#: Answers by the verdict on their number.
ANSWERS = {FOUND: YES, SILENT: NO, WRONG_SIDE: CONTRARY, FALSE_ALARM: CONTRARY, UNDECIDED: OPEN}

#: Keys of the sentences of the answers.
_SENTENCES = {YES: "if_yes", NO: "if_no", CONTRARY: "if_contrary", OPEN: "if_open"}


def number(record: Record) -> str:
    """The estimate with its interval, as a sentence has it."""
    text = f"{record.estimate:.3f}"
    if record.ci_low is None or record.ci_high is None:
        return text
    return f"{text} [{record.ci_low:.3f}, {record.ci_high:.3f}]"


@dataclass(frozen=True)
class Question:
    """A question, the row of a table that it rests on, and its answers in words.

    Parameters
    ----------
    name
        Name of the question; those of one name ask the same of rewards and of preferences.
    question
        The question in words.
    table
        Name of the table.
    where
        Values of the row's labels.
    truth
        The side of the number on which the estimate is a yes.
    sentences
        The sentence of every answer.
    """

    name: str
    question: str
    table: str
    where: Mapping[str, Any]
    truth: Truth
    sentences: Mapping[str, str]

    def answer(self, row: Mapping[str, Any], record: Record) -> tuple[str, str]:
        """The answer and its sentence from a row of the table and its number.

        A number whose null is that of policies of a noise reward is undecided where it lies within
        their range, which neither interval nor test of a mean over seeds knows, and where none
        stands beside it: what all trainings share is told from 0 by any interval.
        """
        answer, null = ANSWERS[verdict_on(row, self.truth)], ""
        if row.get("null_policies", 0) > 0:
            low, high = row["null_low"], row["null_high"]
            null = f"; noise rewards: {low:.3f} to {high:.3f}"
            if answer in (YES, CONTRARY) and low <= record.estimate <= high:
                answer = OPEN
        elif "null_policies" in row:
            answer, null = OPEN, "; no policy of a noise reward beside it"
        return answer, self.sentences[answer].format(number=number(record), null=null)


def questions(path: Path = QUESTIONS) -> list[Question]:
    """The questions of a file in their order."""
    return [
        Question(
            entry["name"], entry["question"], entry["table"], entry["where"],
            Truth(entry["expected"], entry["against"], entry["margin"]),
            {answer: entry[key] for answer, key in _SENTENCES.items()},
        )
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]  # fmt: skip
