"""The file of answers of a blind audit, checked row by row."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Columns of a file of answers.
COLUMNS = ("policy", "suspicion", "rank", "word")


class AnswersError(ValueError):
    """A file of answers that cannot be scored."""


@dataclass
class Answer:
    """What is answered of one policy: its suspicion, and the ranks of the words that are named."""

    suspicion: float
    ranks: dict[str, int] = field(default_factory=dict)


def read_answers(
    path: str | Path, vocabularies: Mapping[str, Collection[str]]
) -> dict[str, Answer]:
    """The answers in a CSV file by the name of the policy.

    Parameters
    ----------
    path
        The file, whose columns are :data:`COLUMNS`.
    vocabularies
        The words that may be named of each policy, by its name.

    Raises
    ------
    AnswersError
        With file and line: a column or policy that is missing, an unknown policy or word, a rank
        or a word that stands twice, a value that is no number, two suspicions of one policy.
    """
    answers: dict[str, Answer] = {}
    for line, row in _rows(Path(path)):
        try:
            _take(row, answers, vocabularies)
        except AnswersError as error:
            raise AnswersError(f"{path}, line {line}: {error}") from None
    if missing := sorted(set(vocabularies) - set(answers)):
        raise AnswersError(
            f"{path}: no row for {len(missing)} of {len(vocabularies)} policies, the first is"
            f" {missing[0]}; give every policy a row, with rank and word empty where none is named"
        )
    return answers


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Every row with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if sorted(reader.fieldnames or []) != sorted(COLUMNS):
                given = ", ".join(reader.fieldnames or []) or "none"
                raise AnswersError(
                    f"{path}, line 1: expected the columns {', '.join(COLUMNS)}, got {given}"
                )
            for row in reader:
                if None in row or None in row.values():
                    raise AnswersError(
                        f"{path}, line {reader.line_num}: expected {len(COLUMNS)} values; leave"
                        " rank and word empty, with their commas, where no word is named"
                    )
                yield reader.line_num, {key: value.strip() for key, value in row.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnswersError(
            f"{path} cannot be read as CSV in UTF-8 ({error}); save it anew"
        ) from error


def _take(
    row: Mapping[str, str],
    answers: dict[str, Answer],
    vocabularies: Mapping[str, Collection[str]],
) -> None:
    """Add one row to the `answers`; AnswersError where it cannot stand there."""
    policy, rank, word = row["policy"], row["rank"], row["word"]
    if policy not in vocabularies:
        raise AnswersError(f"unknown policy {policy!r}; take a name of policies.csv")
    suspicion = _suspicion(row["suspicion"])
    known = policy in answers
    answer = answers.setdefault(policy, Answer(suspicion))
    if answer.suspicion != suspicion:
        raise AnswersError(
            f"suspicion {suspicion:g} of {policy}, which an earlier row gives as"
            f" {answer.suspicion:g}; give one suspicion for a policy, the same in all of its rows"
        )
    if not rank and not word:
        if known:
            raise AnswersError(f"{policy} has a row already; leave out the row without a word")
        return
    place = _number(rank)
    if not (place.is_integer() and place >= 1):
        raise AnswersError(f"rank {rank!r} is not a number; expected a whole one from 1 on")
    if word not in vocabularies[policy]:
        raise AnswersError(
            f"unknown word {word!r}; take one that candidates.csv has for the group of {policy}"
        )
    if word in answer.ranks:
        raise AnswersError(f"duplicate: {policy} names {word!r} twice; name each word once")
    if place in answer.ranks.values():
        raise AnswersError(f"duplicate: {policy} has the rank {rank} twice; give each rank once")
    answer.ranks[word] = int(place)


def _suspicion(text: str) -> float:
    value = _number(text)
    if not math.isfinite(value):
        raise AnswersError(f"suspicion {text!r} is not a number; expected a finite one, as 0.7")
    return value


def _number(text: str) -> float:
    """The number in a text; NaN where it is none. Programs write whole numbers as 1.0, too."""
    try:
        return float(text)
    except ValueError:
        return math.nan
