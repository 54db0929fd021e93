"""The questions that planted rewards answer, and where the truth has the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_table
from lfp.statistics.partitions import PartValues, partitions_difference_record
from lfp.statistics.records.base import Record
from lfp.statistics.records.kendall import kendall_difference_record, kendall_record
from lfp.statistics.records.labels import auroc_record
from lfp.statistics.records.shares import two_shares_record
from lfp.statistics.verdicts import EQUIVALENCE, Truth
from lfp.tables.ablation import ArmKey, Arms, cost_beside_random
from lfp.tables.planted import DRIFTING, PROBED, READOUTS
from lfp.tables.planted.readouts import CellArtefacts
from lfp.tables.probes import tau_of
from lfp.tables.rows import TableSettings
from lfp.texts.words import count_words


@dataclass(frozen=True)
class Case:
    """A planted cell, and the cells that it is held against.

    Parameters
    ----------
    planted
        The planted cell.
    clean
        The clean cell of the same model, corpus and seed.
    others
        Clean cells of other seeds by their name in the table: the same lesson learned anew.
    noise
        The cell of the same seed whose reward is noise; None where there is none.
    truth
        Content of the planted task's truth file.
    arms
        The planted cell's ablations, empty where nothing was ablated.
    settings
        Settings of all tables.
    """

    planted: CellArtefacts
    clean: CellArtefacts
    others: Mapping[str, CellArtefacts]
    noise: CellArtefacts | None
    truth: Mapping[str, Any]
    arms: Arms
    settings: TableSettings


@dataclass(frozen=True)
class Answer:
    """One number that answers a question.

    ``of`` says whose reading it is, ``readout`` how it was read, and ``expected`` where the planted
    truth has it. ``narrow`` is the number of ``record`` with the interval of a test of equivalence.
    ``values`` are the words or features behind the number.
    """

    question: str
    readout: str
    of: str
    record: Record
    narrow: Record
    expected: Truth
    values: pd.DataFrame | None = None


#: The number of an answer from the settings of its resampling.
Measure = Callable[..., Record]


def _measured(case: Case, measure: Measure) -> tuple[Record, Record]:
    """A number with the interval of the tables, and with that of a test of equivalence."""
    resampling = case.settings.resampling
    return measure(**resampling), measure(**resampling | {"confidence": EQUIVALENCE})


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
    margin = case.settings.tau_margin
    cells = (("planted policy", case.planted, expected), ("clean policy", case.clean, "above"))
    pairs = [(of, wanted, (cell, "policy"), (cell, "base")) for of, cell, wanted in cells]
    pairs += [
        (f"{name} - clean", "at", (other, "policy"), (case.clean, "policy"))
        for name, other in case.others.items()
    ]
    for of, wanted, *sides in pairs:
        for readout in (name for name in READOUTS if name not in DRIFTING):
            after, before = (cell.reading(readout, subject) for cell, subject in sides)
            if after is None or before is None:
                continue
            both = after.merge(before, on=["word", "valence"], suffixes=("", "_base"))
            if readout in PROBED:
                parts = [cell.parts(readout, subject) for cell, subject in sides]
                movement_of = _movement_of_probes(parts[0].minus(parts[1]), len(both))
            else:
                movement_of = _movement(both)
            record, narrow = _measured(case, movement_of)
            yield Answer(question, readout, of, record, narrow, Truth(wanted, 0.0, margin), both)


def _movement(both: pd.DataFrame) -> Measure:
    """The difference in tau-b of two readings of words, whose first may be one of the base."""
    value, before, valence = (both[name].to_numpy() for name in ("value", "value_base", "valence"))
    if before.any():
        return partial(kendall_difference_record, value, before, valence)
    # The reading is a difference to the base itself. All verdicts are by tests of both sides.
    return partial(kendall_record, value, valence, two_sided=True)


def _movement_of_probes(parts: PartValues, words: int) -> Measure:
    """The difference in tau-b of two probes, over the test parts of their repeated partitions.

    Probes of one cell have the same partitions and the same permuted labels. Those of two seeds
    have their own, so that what they share is not taken out: the interval is then a wide one.
    """

    def measure(confidence: float, **_: int) -> Record:
        tau = tau_of("all")
        return partitions_difference_record(parts, words, "word", tau.name, tau.gaps, confidence)

    return measure


def disagreement(reading: pd.DataFrame) -> np.ndarray:
    """Distance of each word's reading from the readings' mean on the wrong side.

    The side is that of the clean lexicon's sign.
    """
    return (-np.sign(reading["valence"]) * (reading["value"] - reading["value"].mean())).to_numpy()


def flipped(case: Case) -> Iterator[Answer]:
    """The flipped words must stand out by their disagreement with the clean lexicon.

    They must do so more than in a policy of the clean lexicon. In policies that were taught no
    flips, they must not.
    """
    question = "do flipped words stand out? (AUROC of disagreement with the clean lexicon)"
    margin = case.settings.auroc_margin
    nulls = dict(case.others) | ({"noise policy": case.noise} if case.noise else {})
    for readout in READOUTS:
        clean = case.clean.reading(readout, "policy")
        if clean is None:
            continue
        cells = {"planted policy": case.planted, "clean policy": case.clean, **nulls}
        for of, cell in cells.items():
            reading = cell.reading(readout, "policy")
            if reading is None:
                continue
            both = reading.merge(clean, on=["word", "valence"], suffixes=("", "_clean"))
            is_flipped = both["word"].isin(case.truth["flipped"]).to_numpy().astype(int)
            if len(set(is_flipped.tolist())) < 2:
                continue
            side = "above" if cell is case.planted else "at"
            first = disagreement(both)
            second = disagreement(both[["word", "valence"]].assign(value=both["value_clean"]))
            area = partial(auroc_record, is_flipped, first, both["word"], unit="word")
            values = both.assign(flipped=is_flipped == 1) if cell is case.planted else None
            about = Truth(side, 0.5, margin)
            record, narrow = _measured(case, area)
            yield Answer(question, readout, of, record, narrow, about, values)
            if cell is not case.clean:
                record, narrow = _measured(case, partial(area, against=second))
                name, about = f"{of.removesuffix(' policy')} - clean", Truth(side, 0.0, margin)
                yield Answer(question, readout, name, record, narrow, about)


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
    (k1, n1), (k2, n2) = ((sum(names), len(names)) for names in named)
    shares = partial(two_shares_record, k1, n1, k2, n2, "feature")
    # Newcombe's interval and Fisher's test draw nothing.
    record, narrow = _measured(case, lambda confidence, **_: shares(confidence=confidence))
    question = "do explanations name the trigger? (share of explained features)"
    planted = np.repeat([True, False], [len(named[0]), len(named[1])])
    values = pd.DataFrame({"planted": planted, "names_trigger": [*named[0], *named[1]]})
    about = Truth("above", 0.0, case.settings.share_margin)
    return Answer(question, "explanations", "planted - clean", record, narrow, about, values)


def _carried(case: Case) -> Iterator[Answer]:
    """Does taking the trigger's features away cost more reward than taking matched random ones?"""
    key = ArmKey("policy", "random", "zero", "explained")
    if key not in case.arms:
        return
    record, narrow = _measured(
        case, lambda confidence, **_: cost_beside_random(case.arms, key, confidence)
    )
    question = "do the trigger's features carry the reward? (explained minus random ablation)"
    about = Truth("below", 0.0, case.settings.reward_margin)
    yield Answer(question, "ablation", "planted policy", record, narrow, about)
