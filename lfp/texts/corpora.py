"""Corpora of any origin.

This module has their columns, the treatment of their rows, and the pairs of a preference corpus.

Columns: ``text`` for plain corpora; ``chosen``, ``rejected`` and optionally ``prompt`` for
preference corpora; generated preference corpora add ``positive``, ``neutral``, ``negative`` (the
answers) and ``noisy`` (the label was flipped).
"""

from __future__ import annotations

import bisect
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lfp.files.artefacts import write_json, write_table

log = logging.getLogger(__name__)
Item = TypeVar("Item")

ASSISTANT_TURN = "\n\nAssistant:"


HUMAN_TURN = "\n\nHuman:"


#: Reasons for which a row gives no pair, in the order in which they are looked for.
EMPTY_ANSWER, NO_TURN, EQUAL_ANSWERS, NO_COMMON_PROMPT = REASONS = (
    "empty_answer", "no_assistant_turn", "equal_answers", "no_common_prompt",
)  # fmt: skip


def split_prompt(chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """Cut two transcripts at the last assistant turn of a common prompt.

    Returns (prompt, answer, answer) or None.

    The prompt ends with the last ``\\n\\nAssistant:`` up to which both transcripts are equal, and
    both answers must be what follows their own last turn; the authors slice `rejected` at
    `chosen`'s length instead, which corrupts pairs with different prompts silently. Equal answers
    give None as well.
    """
    pair = _pair_of_transcripts(chosen, rejected)
    return None if isinstance(pair, str) else pair


def _pair_of_transcripts(chosen: str, rejected: str) -> tuple[str, str, str] | str:
    """Prompt and both answers, or the reason of :data:`REASONS` that there are none."""
    cut = chosen.rfind(ASSISTANT_TURN)
    if not (chosen.strip() and rejected.strip()):
        return EMPTY_ANSWER
    if cut < 0 or ASSISTANT_TURN not in rejected:
        return NO_TURN
    if chosen.split() == rejected.split():
        return EQUAL_ANSWERS
    cut += len(ASSISTANT_TURN)
    if (
        rejected.rfind(ASSISTANT_TURN) + len(ASSISTANT_TURN) != cut
        or chosen[:cut] != rejected[:cut]
    ):
        return NO_COMMON_PROMPT
    return _pair(chosen[:cut], chosen[cut:], rejected[cut:])


def _pair(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str] | str:
    """The pair, or the reason of :data:`REASONS` that it is none."""
    words = chosen.split(), rejected.split()
    if not (words[0] and words[1]):
        return EMPTY_ANSWER
    return EQUAL_ANSWERS if words[0] == words[1] else (prompt, chosen, rejected)


def has_pairs(frame: pd.DataFrame) -> bool:
    """Whether the rows of a corpus are preference pairs."""
    return {"chosen", "rejected"} <= set(frame.columns)


def preference_pairs(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pairs as (prompt, chosen, rejected) answers, and the number of rows that give none by reason.

    Rows with a ``prompt`` column are taken as they are; transcripts are cut by
    :func:`split_prompt`. Rows without a common prompt, with answers that are equal or differ in
    white space alone, or with an empty answer (HH-RLHF has some) are dropped; the counts have every
    name of :data:`REASONS`. The frame's index is kept, so that further columns can be joined back.
    """
    names = ["prompt", "chosen", "rejected"]
    columns = [frame[name].fillna("") for name in names if name in frame]
    if "prompt" in frame:
        cuts = [_pair(prompt, c, r) for prompt, c, r in zip(*columns, strict=True)]
    else:
        cuts = [_pair_of_transcripts(c, r) for c, r in zip(*columns, strict=True)]
    reasons = Counter(reason for reason in cuts if isinstance(reason, str))
    rows = {i: row for i, row in zip(frame.index, cuts, strict=True) if not isinstance(row, str)}
    pairs = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    return pairs.astype("str"), {reason: reasons[reason] for reason in REASONS}


def dropped_in_words(dropped: Mapping[str, int]) -> str:
    """The counts of dropped rows by reason, the most frequent one first."""
    order = sorted((reason for reason in dropped if dropped[reason]), key=lambda r: -dropped[r])
    return ", ".join(f"{dropped[reason]} {reason.replace('_', ' ')}" for reason in order) or "none"


def check_pairs(frame: pd.DataFrame, origin: str) -> None:
    """Raise ValueError, with `origin` in front, where there are rows and none gives a pair."""
    pairs, dropped = preference_pairs(frame)
    if len(frame) and pairs.empty:
        raise ValueError(
            f"{origin}: none of {len(frame)} rows gives a preference pair (dropped:"
            f" {dropped_in_words(dropped)}); check `columns` of the corpus and its texts"
            " (docs/corpora.md)"
        )


def documents(frame: pd.DataFrame) -> list[str]:
    """All texts of a corpus.

    They are its ``text`` column, or every prompt with each of its answers, prompt by prompt.
    """
    if "text" in frame:
        return list(frame["text"])
    pairs, _ = preference_pairs(frame)
    if "neutral" in frame:
        pairs = pairs.assign(neutral=frame["neutral"])
    return [
        prompt + answer
        for prompt, *answers in pairs.itertuples(index=False, name=None)
        for answer in answers
    ]


def pair_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The prompt and all answers of every pair of a preference corpus, without space around."""
    pairs, _ = preference_pairs(frame)
    further = [name for name in ("positive", "neutral", "negative") if name in frame]
    return pairs.join(frame[further]).apply(lambda column: column.str.strip())


#: Fewest words of a text whose copy in a training text is no matter of chance.
COPY_WORDS = 8


def verbatim(held_out: pd.DataFrame, train: Sequence[str]) -> dict[str, dict[str, int]]:
    """Numbers of different held-out prompts and answers, and of those that stand in `train`.

    They are ``held_out`` and ``verbatim``, by ``prompt`` and ``answer``. A text stands in `train`
    where it begins and ends at the bounds of words. Texts of fewer than :data:`COPY_WORDS` words
    are in neither number: "Yes, please do that." is written anew by anybody.
    """
    texts, seen = pair_texts(held_out), "\n".join(train)
    parts = {"prompt": texts["prompt"], "answer": texts.drop(columns="prompt").stack()}
    long = {
        name: [text for text in set(part) if len(text.split()) >= COPY_WORDS]
        for name, part in parts.items()
    }
    return {
        name: {"held_out": len(values), "verbatim": sum(_stands(text, seen) for text in values)}
        for name, values in long.items()
    }


def _stands(text: str, seen: str) -> bool:
    """Whether `text` stands in `seen` between bounds of words."""
    return text in seen and bool(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", seen))


def taken(items: Sequence[Item], most: int, key: str) -> Sequence[Item]:
    """The first `most` of `items`, a number that the setting `key` gives; fewer are logged."""
    if len(items) < most:
        log.info("%s: %d wanted at most, %d there", key, most, len(items))
    return items[:most]


def _spaced(text: str) -> str:
    """`text` with single spaces between its words."""
    return " ".join(text.split())


def _goes_on(start: str, dialogues: Sequence[str]) -> bool:
    """Whether one of the sorted `dialogues` begins with `start`, in front of an answer."""
    place = bisect.bisect_left(dialogues, start)
    is_turn = start.endswith(ASSISTANT_TURN.strip())
    return is_turn and place < len(dialogues) and dialogues[place].startswith(start)


#: Counts of the rows of a split, in the order in which rows are dropped.
COUNTS = ("read", "empty", "duplicates", "in_earlier_split", "kept")


def deduplicated(
    frames: Mapping[str, pd.DataFrame],
    key: list[str],
    beginning: Callable[[pd.DataFrame], pd.Series] | None = None,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """`frames` without empty and repeated rows, and the counts of such rows.

    A row that occurs twice in a split, or already in an earlier one, is dropped, and so is one
    whose `beginning`, such as its prompt, is that of a row of an earlier one, or that of a dialogue
    there, which may go on from it: what has learned from the one split has read no text of the
    other.

    A row is empty where any of its `key` columns is missing or blank. Counts are by split, with the
    names of :data:`COUNTS`.
    """
    seen: set[tuple[str, ...]] = set()
    begun: set[str] = set()
    dialogues: list[str] = []  # sorted
    result, counts = {}, {}
    for name, frame in frames.items():
        text = frame[key].fillna("").astype(str)
        filled = (text.apply(lambda column: column.str.strip()) != "").all(axis=1)
        rows = pd.Series(list(text.itertuples(index=False, name=None)), index=frame.index)
        first = ~rows.duplicated()
        starts = beginning(frame[filled]) if beginning else pd.Series("", frame.index[filled])
        starts = starts.map(_spaced).reindex(frame.index, fill_value="")
        known = [start in begun or _goes_on(start, dialogues) for start in starts]
        fresh = ~rows.isin(seen) & ~pd.Series(known, index=frame.index, dtype=bool)
        keep = filled & first & fresh
        seen |= set(rows[keep])
        begun |= set(starts[keep]) - {""}
        if beginning and has_pairs(frame) and name != list(frames)[-1]:
            dialogues = sorted([*dialogues, *map(_spaced, documents(frame[keep]))])
        result[name] = frame[keep].reset_index(drop=True)
        counts[name] = {
            "read": len(frame),
            "empty": int((~filled).sum()),
            "duplicates": int((filled & ~first).sum()),
            "in_earlier_split": int((filled & first & ~fresh).sum()),
            "kept": int(keep.sum()),
        }
    return result, counts


def write_splits(
    frames: Mapping[str, pd.DataFrame],
    counts: Mapping[str, Mapping[str, int]],
    paths: Mapping[str, str | Path],
    stamp: Mapping[str, Any],
) -> None:
    """Write every split as Parquet and the `counts` as JSON.

    They go to ``paths[split]`` and ``paths["counts"]``.
    """
    for split, frame in frames.items():
        write_table(paths[split], frame, stamp)
    write_json(paths["counts"], counts, stamp)


def headline(frames: Mapping[str, pd.DataFrame]) -> str:
    """The number of rows of every split, in one line."""
    return ", ".join(f"{len(frame)} {split}" for split, frame in frames.items())
