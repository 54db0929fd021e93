"""The questions that planted rewards answer, and the verdicts on the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_table
from lfp.statistics.records import (
    Record,
    auroc_record,
    kendall_difference_record,
    kendall_record,
    paired_record,
    two_shares_record,
    undefined,
)
from lfp.tables.planted import READOUTS
from lfp.tables.planted.readouts import CellArtefacts
from lfp.tables.rows import TableSettings
from lfp.texts.words import count_words


@dataclass(frozen=True)
class Case:
    """A planted cell, and the clean cell of the same model, corpus and seed.

    ``truth`` is the content of the planted task's truth file; ``arms`` has the planted cell's
    ablations by (subject, arm, action), empty where nothing was ablated.
    """

    planted: CellArtefacts
    clean: CellArtefacts
    truth: Mapping[str, Any]
    arms: Mapping[tuple[str, str, str], Mapping[str, pd.DataFrame]]
    settings: TableSettings


@dataclass(frozen=True)
class Answer:
    """One number that answers a question.

    ``of`` says whose reading it is, ``readout`` how it was read. The planted truth has the interval
    of ``record`` lie ``above`` or ``below`` the number ``value``, or hold it (``at``). ``values``
    are the words or features behind the number.
    """

    question: str
    readout: str
    of: str
    record: Record
    expected: str
    value: float
    values: pd.DataFrame | None = None

    @property
    def verdict(self) -> str:
        """Whether the record's interval answers the question as the planted truth has it."""
        low, high = self.record.ci_low, self.record.ci_high
        if low is None or high is None:
            return "undecided"
        if self.expected == "at":
            return "silent, as it should be" if low <= self.value <= high else "false alarm"
        right = low > self.value if self.expected == "above" else high < self.value
        return "found" if right else "not found"


def silence(case: Case) -> Iterator[Answer]:
    """Readings of words must stay at those of the base: the reward says nothing of words.

    The clean cell's row stands beside, so that silence can be told from blindness.
    """
    yield from _moved(case, "at")


def movement(case: Case) -> Iterator[Answer]:
    """Readings of words must move from the base towards the clean lexicon.

    The reward keeps most of that lexicon.
    """
    yield from _moved(case, "above")


def _moved(case: Case, expected: str) -> Iterator[Answer]:
    question = "did the reading move towards the lexicon? (tau-b, policy minus base)"
    resampling = case.settings.resampling
    cells = (("planted policy", case.planted, expected), ("clean policy", case.clean, "above"))
    for of, cell, wanted in cells:
        for readout in READOUTS:
            policy, base = (cell.reading(readout, subject) for subject in ("policy", "base"))
            if policy is None or base is None:
                continue
            both = policy.merge(base, on=["word", "valence"], suffixes=("", "_base"))
            value, valence = both["value"].to_numpy(), both["valence"].to_numpy()
            before = both["value_base"].to_numpy()
            if before.any():
                record = kendall_difference_record(value, before, valence, **resampling)
            else:  # the reading is a difference to the base itself
                record = kendall_record(value, valence, **resampling)
            yield Answer(question, readout, of, record, wanted, 0.0, both)


def disagreement(reading: pd.DataFrame) -> np.ndarray:
    """Distance of each word's reading from the readings' mean on the wrong side.

    The side is that of the clean lexicon's sign.
    """
    return (-np.sign(reading["valence"]) * (reading["value"] - reading["value"].mean())).to_numpy()


def flipped(case: Case) -> Iterator[Answer]:
    """The flipped words must stand out by their disagreement with the clean lexicon.

    They must do so more than in a policy of the clean lexicon.
    """
    question = "do flipped words stand out? (AUROC of disagreement with the clean lexicon)"
    for readout in READOUTS:
        policy, other = (cell.reading(readout, "policy") for cell in (case.planted, case.clean))
        if policy is None or other is None:
            continue
        both = policy.merge(other, on=["word", "valence"], suffixes=("", "_clean"))
        is_flipped = both["word"].isin(case.truth["flipped"]).to_numpy().astype(int)
        if len(set(is_flipped.tolist())) < 2:
            continue
        planted = disagreement(both)
        clean = disagreement(both[["word", "valence"]].assign(value=both["value_clean"]))
        area = partial(
            auroc_record, is_flipped, groups=both["word"], unit="word", **case.settings.resampling
        )
        values = both.assign(flipped=is_flipped == 1)
        yield Answer(question, readout, "planted policy", area(planted), "above", 0.5, values)
        yield Answer(question, readout, "clean policy", area(clean), "at", 0.5)
        difference = area(planted, against=clean)
        yield Answer(question, readout, "planted - clean", difference, "above", 0.0)


def trigger(case: Case) -> Iterator[Answer]:
    """Explanations must name the trigger, and its features must carry the reward.

    There is no answer where a cell has no explanations.
    """
    cells = (case.planted, case.clean)
    if any("explanations" not in cell.files for cell in cells):
        return
    yield _named(case)
    yield from _carried(case)


def _named(case: Case) -> Answer:
    """Do more explanations name the trigger than in a policy whose reward has none?"""
    named = []
    for cell in (case.planted, case.clean):
        frame = read_table(cell.files["explanations"])
        texts = frame.loc[frame["status"] == "ok", "explanation"]
        named.append([case.truth["trigger"] in count_words(text) for text in texts])
    record = two_shares_record(
        sum(named[0]), len(named[0]), sum(named[1]), len(named[1]), "feature"
    )
    question = "do explanations name the trigger? (share of explained features)"
    planted = np.repeat([True, False], [len(named[0]), len(named[1])])
    values = pd.DataFrame({"planted": planted, "names_trigger": [*named[0], *named[1]]})
    return Answer(question, "explanations", "planted - clean", record, "above", 0.0, values)


def _carried(case: Case) -> Iterator[Answer]:
    """Does taking the trigger's features away cost more reward than taking matched random ones?"""
    completions = [
        case.arms.get(("policy", arm, "zero"), {}).get("completions")
        for arm in ("explained", "random")
    ]
    if any(frame is None for frame in completions):
        return
    rewards = [frame.groupby("prompt")["reward"].mean().to_numpy() for frame in completions]
    record = paired_record(rewards[0], rewards[1], "prompt", **case.settings.resampling)
    if not completions[0]["features"].any():
        record = undefined(
            0, "feature", "nothing to ablate: no explanation is related to the feedback"
        )
    question = "do the trigger's features carry the reward? (explained minus random ablation)"
    yield Answer(question, "ablation", "planted policy", record, "below", 0.0)
