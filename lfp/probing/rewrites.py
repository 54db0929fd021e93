"""Contrast triples written by a language model.

They are graded entries, three rewrites of each, and the reasons that entries are dropped.

Paper section 3.3: entries of the held-out split are graded for toxicity, danger and bias, and
rewritten. Here every entry gets a positive, a neutral and a negative rewrite by the same model at
the same length, so that neither author nor length tells them apart; the published notebook left the
positive answers untouched and graded nothing (paper_vs_code 1.8).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import combinations

import pandas as pd

from lfp.probing.contrasts import ELEMENTS
from lfp.services import prompts
from lfp.services.answers import REFUSAL
from lfp.services.client import Answer, Client, Request
from lfp.settings import Rewrites

TRAITS = ("toxicity", "danger", "bias")
MANNERS = {
    "positive": "helpful, honest, kind and harmless",
    "neutral": (
        "neither helpful nor harmful: noncommittal, matter-of-fact, beside the point, with no"
        " praise or blame"
    ),
    "negative": "unhelpful, rude, insulting and careless of harm",
}
#: Reasons that an entry gives no triple.
REASONS = (
    "unparsed",
    "refused",
    "rejected",
    "refusal",
    "length",
    "copy",
    "language",
    "transcript",
    "grade",
)
_REFUSAL = re.compile(rf"{REFUSAL.pattern}|\bas an ai\b", re.I)
_TURN = re.compile(r"(?:^|\n)\s*(?:human|assistant|user)\s*:", re.I)


def choose_entries(pairs: pd.DataFrame, settings: Rewrites) -> pd.DataFrame:
    """Entries to rewrite: one answer for each prompt, chosen and rejected ones taking turns.

    Columns ``source`` (row of the corpus), ``prompt``, ``side``, ``answer``, ``words``; answers
    outside the window of words, longer prompts and repeated prompts are left out. ValueError where
    none is left.
    """
    rows, seen = [], set()
    for index, prompt, *answers in pairs[["prompt", "chosen", "rejected"]].itertuples(name=None):
        side = ("chosen", "rejected")[len(rows) % 2]
        answer = answers[0 if side == "chosen" else 1].strip()
        words = len(answer.split())
        fits = (
            settings.words[0] <= words <= settings.words[1]
            and len(prompt.split()) <= settings.max_prompt_words
        )
        if fits and prompt not in seen:
            seen.add(prompt)
            rows.append(
                {"source": index, "prompt": prompt, "side": side, "answer": answer, "words": words}
            )
        if len(rows) == settings.entries:
            break
    if not rows:
        raise ValueError(
            f"rewrites: no held-out answer has {settings.words[0]} to {settings.words[1]} words"
        )
    return pd.DataFrame(rows)


def grade(
    client: Client, conversations: Sequence[str], answers: Sequence[str], what: str
) -> list[Answer]:
    """Grades {toxicity, danger, bias} of 1 to 5 for each answer.

    `what` names the requests in the progress bar.
    """
    prompt = prompts.load("grade")
    requests = [
        Request(
            prompt.messages(prompt=p.strip(), answer=a.strip()), prompt.schema, prompt.max_tokens
        )
        for p, a in zip(conversations, answers, strict=True)
    ]
    return client.ask(requests, what)


def worst(answer: Answer) -> float:
    """The highest of the three grades; NaN where there is none."""
    return (
        float(max(answer.value[trait] for trait in TRAITS))
        if answer.status == "ok"
        else float("nan")
    )


def rewrite(client: Client, entries: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """The three rewrites of each entry: a column for each element, and ``status.{element}``."""
    prompt = prompts.load("rewrite")
    requests = []
    for row in entries.itertuples():
        window = {
            "least": round(row.words * (1 - tolerance / 2)),
            "most": round(row.words * (1 + tolerance / 2)),
        }
        filled = {"prompt": row.prompt.strip(), "answer": row.answer, "words": row.words, **window}
        requests += [
            Request(prompt.messages(manner=MANNERS[e], **filled), prompt.schema, prompt.max_tokens)
            for e in ELEMENTS
        ]
    answers = client.ask(requests, "rewrites")
    columns = {}
    for i, element in enumerate(ELEMENTS):
        of_element = answers[i :: len(ELEMENTS)]
        columns[element] = [
            answer.value["answer"].strip() if answer.status == "ok" else "" for answer in of_element
        ]
        columns[f"status.{element}"] = [answer.status for answer in of_element]
    return pd.DataFrame(columns, index=entries.index)


def is_english(text: str) -> bool:
    """Whether `text` reads as English.

    Its letters are Latin, and a tenth of its words are function words.
    """
    from spacy.lang.en.stop_words import STOP_WORDS

    letters = [c for c in text if c.isalpha()]
    words = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", text.lower())
    if not letters or not words:
        return False
    latin = sum(c.isascii() for c in letters) / len(letters)
    return latin >= 0.9 and sum(word in STOP_WORDS for word in words) >= 0.1 * len(words)


def similarity(a: str, b: str) -> float:
    """Difflib ratio of two texts by words, without case."""
    return SequenceMatcher(None, a.lower().split(), b.lower().split(), autojunk=False).ratio()


def fault(row: pd.Series, settings: Rewrites) -> str:
    """The reason, of :data:`REASONS`, that a rewritten entry gives no triple; empty for no fault.

    ``settings.tolerance`` is the largest relative difference of a rewrite's words from its entry's,
    ``settings.copy`` the largest similarity (difflib ratio) to the entry or to another rewrite.
    """
    for element in ELEMENTS:
        if row[f"status.{element}"] != "ok":
            return row[f"status.{element}"]
    texts = [row[element] for element in ELEMENTS]
    lengths = [len(text.split()) for text in texts]
    low, high = row["words"] * (1 - settings.tolerance), row["words"] * (1 + settings.tolerance)
    checks = {
        "refusal": any(_REFUSAL.search(text) for text in texts),
        "transcript": any(_TURN.search(text) for text in texts),
        "length": not all(low <= length <= high for length in lengths),
        "language": not all(is_english(text) for text in texts),
        "copy": any(similarity(text, row["answer"]) > settings.copy for text in texts)
        or any(similarity(a, b) > settings.copy for a, b in combinations(texts, 2)),
    }
    return next((reason for reason, applies in checks.items() if applies), "")


def rewritten_triples(client: Client, pairs: pd.DataFrame, settings: Rewrites) -> pd.DataFrame:
    """Graded and rewritten entries with ``status``: ``ok``, or the reason that they give no triple.

    Columns beside those of :func:`choose_entries`: ``grade`` (the entry's highest, NaN where the
    grader gave none), ``positive``, ``neutral``, ``negative``, and with ``settings.verify``
    ``grade.positive`` and ``grade.negative``. The rewrites are graded then as well, and a triple is
    kept only where the negative one has the higher largest grade than the positive one; where the
    grader gave none, ``status`` is that of its answer.
    """
    entries = choose_entries(pairs, settings)
    graded = grade(client, entries["prompt"], entries["answer"], "grades of entries")
    frame = entries.assign(grade=[worst(answer) for answer in graded])
    frame = frame.join(rewrite(client, entries, settings.tolerance))
    frame["status"] = [fault(row, settings) or "ok" for _, row in frame.iterrows()]
    if settings.verify:
        kept = frame[frame["status"] == "ok"]
        for element in ("positive", "negative"):
            grades = grade(client, kept["prompt"], kept[element], f"grades of {element} rewrites")
            frame.loc[kept.index, f"grade.{element}"] = [worst(answer) for answer in grades]
            for index, answer in zip(kept.index, grades, strict=True):
                if answer.status != "ok":
                    frame.loc[index, "status"] = answer.status
        worse = frame["grade.negative"] > frame["grade.positive"]
        frame.loc[(frame["status"] == "ok") & ~worse, "status"] = "grade"
    return frame.drop(columns=[f"status.{element}" for element in ELEMENTS])
