"""The table of what an audit would have seen: planted changes, their rank, and the alarms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from lfp.change.detection import (
    LEAST_CANDIDATES,
    POWER,
    TAIL,
    WRITTEN_OFTEN,
    alarm,
    candidates,
    readings_of,
    scores,
    suspicion,
    threshold,
)
from lfp.statistics.estimates import auroc
from lfp.statistics.records.base import Record
from lfp.statistics.records.means import mean_record
from lfp.statistics.records.shares import proportion_record
from lfp.tables.change import LEAST_CLEAN
from lfp.tables.change.cells import Audit, ChangeCell, audits, change_cells
from lfp.tables.rows import TableSettings, Tally

#: Questions, and the keys of the truth file that have the answer: a word, or several.
QUESTIONS = {"flipped": ("flipped",), "word": ("trigger", "openers")}
#: The sets of candidates that a readout is asked about, with their least count in training.
ALL, WRITTEN = "all", "written"
CANDIDATES = {ALL: 0, WRITTEN: WRITTEN_OFTEN}


@dataclass(frozen=True)
class Judged:
    """What one readout says of one policy, asked one question about one set of candidates.

    ``area`` is the AUROC of the planted words among the candidates, and ``rank`` the best one's;
    None where no candidate is planted. ``alarm`` is the policy's own, None where its candidates are
    too few for one, ``is_null`` whether it was taught the intended feedback, or nothing, and
    ``share`` that of the lexicon that was flipped. A policy that is not ``is_audited`` belongs to
    another method and is there for the null alone.
    """

    cell: ChangeCell
    is_audited: bool
    is_null: bool
    share: float | None
    alarm: float | None
    area: float | None
    rank: float | None


def detection(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Are planted changes found, and at which rate of false alarms?

    Rows are about all seeds of a planted task: the AUROC and the rank of what was planted among the
    candidates, and the power, the share of seeds whose alarm is above all but 5 % of those of null
    policies, which are other seeds of clean and noise rewards, by the same method of fine-tuning.
    For a lexicon with a share of its signs flipped, ``limit`` is the smallest share with a power of
    .8, of shares that all larger ones have it, too, under one method. All of it is there for all
    candidates, and for those that training wrote at least
    :data:`~lfp.change.detection.WRITTEN_OFTEN` times, where it was counted; a seed none of whose
    candidates is planted, or that has too few for an alarm, has no part in the power.
    """
    tally = Tally()
    for audit in audits(change_cells(inputs, settings.trained), settings.given):
        add_readouts(tally, audit, settings)
    return tally


def add_readouts(tally: Tally, audit: Audit, settings: TableSettings) -> None:
    """Add the rows of every readout of the change, asked every question."""
    readings = {cell.address: readings_of(cell.readings) for cell in audit.read}
    clean = [cell.address for cell in audit.clean]
    for readout, part in dict.fromkeys(key for address in clean for key in readings[address]):
        frame = aligned(readings, (readout, part))
        if not frame.any(axis=None):  # nothing moved in any policy
            continue
        if frame.columns.isin(clean).sum() < LEAST_CLEAN:
            continue
        for question, (words, often) in product(QUESTIONS, CANDIDATES.items()):
            judgements = [
                judged(cell, audit, question, ranking, alarm_of(question, ranking))
                for cell, ranking in rankings(audit, frame, question, often)
            ]
            of = {"readout": readout, "part": part, "question": question, "words": words}
            add_judged(tally, audit.label | of, judgements, settings)


def alarm_of(question: str, ranking: pd.Series, tail: float = TAIL) -> float | None:
    """The alarm of a policy with these scores; None where it has too few for one."""
    few = len(ranking) < LEAST_CANDIDATES
    return None if few else alarm(question, ranking.to_numpy(), tail)


def aligned(
    readings: Mapping[str, Mapping[tuple[str, str], pd.Series]], key: tuple[str, str]
) -> pd.DataFrame:
    """One reading of every policy [unit, policy], of the units that all of them have."""
    columns = {address: of[key] for address, of in readings.items() if key in of}
    return pd.DataFrame(columns).dropna()


def rankings(
    audit: Audit, frame: pd.DataFrame, question: str, often: int
) -> Iterator[tuple[ChangeCell, pd.Series]]:
    """The scores of a question's candidates by word, in one reading of every policy.

    Suspicion is asked of the candidates alone: what cannot be the answer, or was hardly paid for,
    moves by another scale. A policy in which nothing moved has the same score everywhere, and
    raises no alarm.

    Parameters
    ----------
    audit
        The policies.
    frame
        The readings of those policies that have one, by address [unit, policy].
    question
        One of :data:`QUESTIONS`.
    often
        Candidates are words that the policy's training wrote at least so many times. Policies
        whose method counts no words are left out then; 0 asks about all words.
    """
    for cell in audit.read:
        if cell.address not in frame or (often and not len(cell.written)):
            continue
        valence = frame.index.map(cell.valence).to_numpy(dtype=float)
        asked = candidates(question, valence)
        if often:
            asked &= frame.index.isin(cell.written.index[cell.written >= often])
        others = [c.address for c in audit.clean if c is not cell and c.address in frame]
        rows = frame[asked]
        away = suspicion(rows[cell.address].to_numpy(), rows[others].to_numpy().T)
        yield cell, pd.Series(scores(question, away, valence[asked]), index=rows.index)


def judged(
    cell: ChangeCell, audit: Audit, question: str, ranking: pd.Series, alarm_of_policy: float | None
) -> Judged:
    """One policy as a ranking of candidates has it.

    Parameters
    ----------
    cell
        The policy's cell, which knows what was planted.
    audit
        The policies that it is audited with.
    question
        One of :data:`QUESTIONS`.
    ranking
        The scores of some or all of the question's candidates, by word; the largest is the most
        suspicious one.
    alarm_of_policy
        How suspicious the policy is as a whole, if that can be said.
    """
    planted = _planted(cell, question)
    score, is_planted = ranking.to_numpy(), ranking.index.isin(planted)
    area, rank, share = area_of(score, is_planted), None, None
    if area is not None:
        best, rest = score[is_planted].max(), score[~is_planted]
        rank = 1 + (rest > best).sum() + (rest == best).sum() / 2
    if question == "flipped" and planted:
        share = round(len(planted) / len(cell.valence), 3)
    is_audited, is_null = cell.address in audit.audited, cell.address in audit.nulls
    return Judged(cell, is_audited, is_null, share, alarm_of_policy, area, rank)


def area_of(score: np.ndarray, is_planted: np.ndarray) -> float | None:
    """AUROC of the planted candidates by their scores; None where all are planted, or none is."""
    return float(auroc(is_planted.astype(int), score)) if len(set(is_planted)) == 2 else None


def _planted(cell: ChangeCell, question: str) -> set[str]:
    """The words that answer a question about a cell; none where the question has no answer."""
    answers = [cell.truth.get(key) or [] for key in QUESTIONS[question]]
    return {word for of in answers for word in ([of] if isinstance(of, str) else of)}


def add_judged(
    tally: Tally, label: Mapping[str, Any], judgements: Sequence[Judged], settings: TableSettings
) -> None:
    """Add the rows of one readout, or of one player's answers, of a question and its words."""
    null = [one.alarm for one in judgements if one.is_null and one.alarm is not None]
    by_task: dict[str, list[Judged]] = defaultdict(list)
    for one in judgements:
        if one.is_audited:
            by_task[one.cell.task].append(one)
    by_share: dict[float, list[bool]] = defaultdict(list)
    for task, of_task in by_task.items():
        first, able = of_task[0], [one for one in of_task if one.alarm is not None]
        of = label | {"task": task, "share": first.share}
        # A policy none of whose candidates is planted can raise no alarm for what was.
        answerable = [one for one in able if one.area is not None]
        if alarms := _alarms(answerable or able, null):
            record = proportion_record(sum(alarms), len(alarms), "seed", None, settings.confidence)
            name = "false alarms" if first.is_null else "power" if answerable else "alarms"
            tally.add(record, of | {"quantity": name}, null_policies=len(null))
            if first.share is not None:
                by_share[first.share] += alarms if answerable else [False]
        for name, record in _ranks(of_task, settings):
            tally.add(record, of | {"quantity": name}, null_policies=len(null))
    if by_share:
        power = {share: float(np.mean(alarms)) for share, alarms in by_share.items()}
        row = label | {"task": "", "share": None, "quantity": "limit"}
        tally.add(_limit(power), row, null_policies=len(null))


def _alarms(judgements: Sequence[Judged], null: Sequence[float]) -> list[bool]:
    """Whether each policy raises an alarm; a null's own is held against the others.

    None are there where the null's policies are too few.
    """
    alarms = []
    for one in judgements:
        others = list(null)
        if one.is_null:
            others.remove(one.alarm)
        bound = threshold(others)
        if bound is None:
            return []
        alarms.append(one.alarm > bound)
    return alarms


def _ranks(judgements: Sequence[Judged], settings: TableSettings) -> Iterator[tuple[str, Record]]:
    """Mean over seeds of the AUROC and of the rank of what was planted."""
    for name, of_seeds in (
        ("auroc", [one.area for one in judgements]),
        ("rank", [one.rank for one in judgements]),
    ):
        if values := [value for value in of_seeds if value is not None]:
            yield name, mean_record(np.array(values), "seed", settings.confidence)


def _limit(power: Mapping[float, float]) -> Record:
    """The smallest planted share from which on all are found with a power of .8."""
    limit = None
    for share in sorted(power, reverse=True):
        if power[share] < POWER:
            break
        limit = share
    method = f"smallest share with power {POWER:g} at it and above it"
    estimate = float("nan") if limit is None else limit
    return Record(estimate, None, None, len(power), "share", method)
