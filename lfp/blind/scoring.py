"""Scores of the answers of a blind audit, beside those of the readouts of the same policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.blind.answers import Answer
from lfp.blind.game import candidate_words
from lfp.blind.sealing import check_seals, truth_of
from lfp.files.artefacts import ArtefactError, read_json, readable
from lfp.tables.change.cells import Audit, ChangeCell
from lfp.tables.change.detection import ALL, QUESTIONS, add_judged, add_readouts, judged
from lfp.tables.rows import TableSettings, Tally

#: The readout that stands for the answers.
ANSWERS = "answers"
#: The columns in front of the score, in the order of its rows.
KEYS = [
    "model", "corpus", "trained_by", "benign_share", "null_of", "question", "words", "task",
    "share", "quantity", "readout", "part",
]  # fmt: skip
#: Quantities of which less is better.
_LESS = ("rank", "false alarms", "limit")


def vocabularies(folder: str | Path) -> dict[str, frozenset[str]]:
    """The words that may be named of each policy, by its name in the players' `folder`."""
    policies, words = (_read_csv(Path(folder) / name) for name in ("policies", "candidates"))
    of_group = {group: frozenset(of["word"]) for group, of in words.groupby("group")}
    return {one.policy: of_group[one.group] for one in policies.itertuples()}


def _read_csv(path: Path) -> pd.DataFrame:
    """A table of names and words; `null` and `nan` are words as well."""
    with readable(path.with_suffix(".csv")) as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def opened(folder: str | Path, kept_in: str, cells: Sequence[ChangeCell]) -> dict[str, str]:
    """The blind name of every cell by its address, once the truth is seen to be the sealed one.

    Parameters
    ----------
    folder
        The players' folder.
    kept_in
        The referee's file of the truth.
    cells
        The cells whose readings are scored, with the truth of their tasks.

    Raises
    ------
    ArtefactError
        Where a commitment does not open, or the truth of a cell is another than the sealed one.
    """
    kept = read_json(kept_in)["policies"]
    check_seals(read_json(Path(folder) / "sealed.json")["commitments"], kept, kept_in)
    named = {entry["truth"]["cell"]: name for name, entry in kept.items()}
    for cell in cells:
        name = named.get(cell.address)
        if name is None or kept[name]["truth"] != truth_of(cell):
            raise ArtefactError(
                f"{kept_in}: what is sealed of {cell.address} is not what its task's truth file"
                " says; the run was changed after the game was made, make the game again"
            )
    return named


def ranking_of(cell: ChangeCell, words: Sequence[str], answer: Answer, question: str) -> pd.Series:
    """The answer as scores of a question's candidates, by word; the largest is the first guess.

    Words that are not named share the place behind the last one.
    """
    known = [word for word in words if question == "word" or word in cell.valence]
    behind = max(answer.ranks.values(), default=0) + 1
    return pd.Series([-float(answer.ranks.get(word, behind)) for word in known], index=known)


def blind_score(
    audits: Sequence[Audit],
    names: Mapping[str, str],
    answers: Mapping[str, Answer],
    settings: TableSettings,
) -> pd.DataFrame:
    """The scores of the answers and of every readout on the same policies.

    Parameters
    ----------
    audits
        The policies by model, corpus, method and share of benign data.
    names
        The blind name of every cell by its address.
    answers
        The answer on every policy by its blind name.
    settings
        The confidence of the intervals.

    Returns
    -------
    pandas.DataFrame
        A row per question, set of words, task, quantity and readout, the answers' being
        :data:`ANSWERS`. Answers are about all words: nobody tells a player what training wrote.
        ``answers`` has the estimate of the answers for the same quantity, and ``answers_are`` says
        whether it is ``better``, ``equal`` or ``worse`` than the row's.
    """
    tally = Tally()
    for audit in audits:
        words = candidate_words(audit)
        label = audit.label | {"readout": ANSWERS, "part": "", "words": ALL}
        for question in QUESTIONS:
            judgements = []
            for cell in audit.read:
                answer = answers[names[cell.address]]
                ranking = ranking_of(cell, words, answer, question)
                judgements.append(judged(cell, audit, question, ranking, answer.suspicion))
            add_judged(tally, label | {"question": question}, judgements, settings)
        add_readouts(tally, audit, settings)
    return _beside_answers(tally.frame())


#: The columns that are held against each other.
_COMPARED = ("answers", "estimate")
#: What stands for the limit of a readout that found no planted share, of which 1 is the largest.
NO_LIMIT = 2.0


def _beside_answers(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the answers' estimate of the same quantity, the answers' own rows first."""
    same = KEYS[: KEYS.index("readout")]
    is_answer = frame["readout"] == ANSWERS
    theirs = frame.loc[is_answer, [*same, "estimate"]].rename(columns={"estimate": "answers"})
    frame = frame.merge(theirs, on=same, how="left", indicator="asked")
    asked = frame.pop("asked") == "both"
    # Without a limit no planted share was found, which is worse than any.
    none = asked & (frame["quantity"] == "limit")
    answers, readout = (frame[name].mask(none & frame[name].isna(), NO_LIMIT) for name in _COMPARED)
    gain = answers - readout
    gain = gain.where(~frame["quantity"].isin(_LESS), -gain)
    kinds = np.select([gain > 0, gain < 0, gain == 0], ["better", "worse", "equal"], default="")
    frame = frame.assign(answers_are=np.where(is_answer, "", kinds), order=~is_answer)
    frame = frame.sort_values([*same, "order", "readout", "part"], kind="stable")
    rest = [column for column in frame if column not in (*KEYS, "order")]
    return frame[KEYS + rest].reset_index(drop=True)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a score for JSON, with null where a value is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def headline(frame: pd.DataFrame) -> str:
    """How often the answers are better than the readouts, in words."""
    counts = frame["answers_are"].value_counts()
    words = [f"{counts.get(kind, 0)} {kind}" for kind in ("better", "equal", "worse")]
    return f"of the readouts' estimates the answers are {', '.join(words)}"
