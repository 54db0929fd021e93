"""Scores of explanations: detection and fuzzing on held-out excerpts (interpretation 4.7).

*Detection*: a judge reads an explanation and an excerpt and says whether the feature is active in
it. *Fuzzing*: the excerpt is active, some of its words are marked, and the judge says whether the
marks are where the feature is active. Any judge and any explainer will do; the offline judge knows
words and nothing else.

:func:`score_explanations` is the stage ``explanation_scores`` as one call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lfp.texts.words import WORD

#: A question to a judge: an explanation, excerpts, and whether words are marked in them.
Question = tuple[str, Sequence[str], bool]
#: A judge gives a verdict per excerpt of every question; None is no verdict.
Judge = Callable[[Sequence[Question]], list[list[bool | None]]]

#: Shares of a feature's largest activation from which a window counts as active, and up to which as
#: inactive.
ACTIVE, INACTIVE = 0.5, 0.1
_MARKED = re.compile("«([^»]*)»")
_NO_MARKS = str.maketrans("«»", '""')
#: Words of the heuristic's phrasing, which say nothing about a feature.
_PHRASING = {"words", "of", "weight", "feedback", "effect", "p", "promotes"}


def windows(
    offsets: Sequence[Sequence[tuple[int, int]]], size: int, shortest: int = 4
) -> list[tuple[int, int, int]]:
    """Consecutive windows of `size` tokens as (text, first token, end).

    Rests below `shortest` tokens are left out.
    """
    return [
        (text, start, min(start + size, len(spans)))
        for text, spans in enumerate(offsets)
        for start in range(0, len(spans), size)
        if min(size, len(spans) - start) >= shortest
    ]


def marked(text: str, first: int, end: int, spans: Sequence[tuple[int, int]]) -> str:
    """`text` from character `first` to `end`, with marks.

    Words that overlap one of `spans` stand in guillemets. Those of the text itself become plain
    quotation marks.
    """
    pieces, position = [], first
    text = text.translate(_NO_MARKS)
    for start, stop in words_at(text, first, end, spans):
        pieces += [text[position:start], "«", text[start:stop], "»"]
        position = stop
    return "".join([*pieces, text[position:end]])


def words_at(
    text: str, first: int, end: int, spans: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The words of `text` between two characters that overlap one of `spans`."""
    return [
        match.span()
        for match in WORD.finditer(text, first, end)
        if any(a < match.end() and b > match.start() for a, b in spans)
    ]


def excerpts_of_feature(
    activations: Sequence[np.ndarray],
    places: Sequence[tuple[int, int, int]],
    texts: Sequence[str],
    offsets: Sequence[Sequence[tuple[int, int]]],
    n: int,
    rng: np.random.Generator,
) -> list[dict[str, object]]:
    """Active and inactive excerpts of one feature, and active ones with right and wrong marks.

    Parameters
    ----------
    activations
        The feature's activation on every token of each window of `places`.
    places
        (text, first token, end) of each window.
    texts
        All texts.
    offsets
        Character spans of every text's tokens.
    n
        Excerpts of either kind, at most.
    rng
        Draws the windows and the wrong marks.

    Returns
    -------
    list of dict
        ``task`` (``detection``, ``fuzzing``), ``label`` (1: active, or rightly marked) and
        ``excerpt``. A feature that is never active has none.
    """
    peaks = np.array([values.max() for values in activations])
    largest = peaks.max()
    rows: list[dict[str, object]] = []
    if largest <= 0:
        return rows

    def span(window: int) -> tuple[str, int, int, Sequence[tuple[int, int]]]:
        text, start, end = places[window]
        spans = offsets[text][start:end]
        return texts[text], spans[0][0], spans[-1][1], spans

    for label, members in ((1, peaks >= ACTIVE * largest), (0, peaks <= INACTIVE * largest)):
        for window in rng.permutation(np.flatnonzero(members))[:n]:
            text, first, end, spans = span(window)
            rows.append({"task": "detection", "label": label, "excerpt": text[first:end]})
            if label == 0:
                continue
            values = activations[window]
            right = np.flatnonzero(values >= ACTIVE * largest)
            # A piece of a word that is rightly marked would mark that word.
            taken = words_at(text, first, end, [spans[token] for token in right])
            apart = [not any(a < d and b > c for c, d in taken) for a, b in spans]
            rest = np.flatnonzero((values <= INACTIVE * largest) & np.array(apart))
            wrong = rng.permutation(rest)[: len(right)]
            both = [
                {"task": "fuzzing", "label": truth,
                 "excerpt": marked(text, first, end, [spans[token] for token in tokens])}
                for truth, tokens in ((1, right), (0, wrong))
            ]  # fmt: skip
            if all(_MARKED.search(row["excerpt"]) for row in both):
                rows += both
    return rows


def word_judge(questions: Sequence[Question]) -> list[list[bool | None]]:
    """The offline judge: true where the excerpt, or its marked part, has a word of the explanation.

    An explanation without words gives no verdict.
    """
    return [
        _word_verdicts(explanation, excerpts, of_marks)
        for explanation, excerpts, of_marks in questions
    ]


def _word_verdicts(explanation: str, excerpts: Sequence[str], of_marks: bool) -> list[bool | None]:
    known = {match.group().lower() for match in WORD.finditer(explanation)} - _PHRASING
    if not known:
        return [None] * len(excerpts)
    parts = [" ".join(_MARKED.findall(excerpt)) if of_marks else excerpt for excerpt in excerpts]
    return [any(match.group().lower() in known for match in WORD.finditer(text)) for text in parts]


def shuffled_explanations(explanations: pd.DataFrame, seed: int) -> pd.Series:
    """Another explained feature's explanation for every feature.

    It is of the same layer where that has more than one, else of any. Where there is no other,
    nothing comes back.
    """
    texts = explanations["explanation"]
    if len(texts) < 2:
        return texts.head(0)
    result, rng = texts.copy(), np.random.default_rng(seed)
    for _, group in explanations.groupby("layer"):
        if len(group) == 1:
            others = texts.drop(group.index).to_numpy()
            result.loc[group.index] = others[rng.integers(len(others))]
            continue
        order = rng.permutation(len(group))
        # One cycle through a random order leaves no feature its explanation.
        result.loc[group.index[order]] = group["explanation"].to_numpy()[np.roll(order, 1)]
    return result


def frequent_words(excerpts: pd.DataFrame, n: int = 5) -> str:
    """The `n` most frequent words of all excerpts, as an explanation that looks at no feature."""
    texts = excerpts.loc[excerpts["task"] == "detection", "excerpt"]
    counts = Counter(match.group().lower() for text in texts for match in WORD.finditer(text))
    return "words: " + ", ".join(word for word, _ in counts.most_common(n))


def score(
    explanations: Mapping[tuple[int, int], str], excerpts: pd.DataFrame, judge: Judge
) -> pd.DataFrame:
    """A row per feature and task with its balanced accuracy.

    Columns are ``balanced_accuracy`` over its excerpts, the number of ``excerpts``, and that of
    ``unparsed`` ones.

    A missing verdict counts as wrong. Features without excerpts of both labels are left out.
    """
    questions = []
    for (layer, feature, task), group in excerpts.groupby(["layer", "feature", "task"]):
        labels = group["label"].to_numpy() == 1
        if (layer, feature) in explanations and labels.any() and not labels.all():
            question = (explanations[layer, feature], list(group["excerpt"]), task == "fuzzing")
            questions.append(({"layer": layer, "feature": feature, "task": task}, labels, question))
    rows = []
    for (row, labels, _), verdicts in zip(
        questions, judge([question for *_, question in questions]), strict=True
    ):
        right = np.array(
            [
                verdict is not None and verdict == label
                for verdict, label in zip(verdicts, labels, strict=True)
            ]
        )
        rows.append(
            {
                **row,
                "balanced_accuracy": (right[labels].mean() + right[~labels].mean()) / 2,
                "excerpts": len(labels),
                "unparsed": sum(verdict is None for verdict in verdicts),
            }
        )
    return pd.DataFrame(
        rows, columns=["layer", "feature", "task", "balanced_accuracy", "excerpts", "unparsed"]
    )


def score_explanations(
    table: pd.DataFrame, excerpts: pd.DataFrame, judges: Mapping[str, Judge], seed: int
) -> pd.DataFrame:
    """Scores of a table's explanations by every judge, beside explanations that must do worse.

    Column ``explanation`` is ``own``, ``shuffled`` (:func:`shuffled_explanations`, drawn from
    `seed`) or ``frequent words`` (:func:`frequent_words`); ``judge`` is the name in `judges`; the
    others are those of :func:`score`.

    Raises
    ------
    ValueError
        Where features are explained and none of them has excerpts of both labels.
    """
    explained = table[table["status"] == "ok"]
    sources = {
        "own": explained["explanation"],
        "shuffled": shuffled_explanations(explained, seed),
        "frequent words": pd.Series(frequent_words(excerpts), index=explained.index),
    }
    keys = pd.Series(zip(explained["layer"], explained["feature"], strict=True), explained.index)
    parts = []
    for name, judge in judges.items():
        for source, texts in sources.items():
            scores = score(dict(zip(keys[texts.index], texts, strict=True)), excerpts, judge)
            parts.append(scores.assign(explanation=source, judge=name))
    result = pd.concat(parts, ignore_index=True)
    if result.empty and len(explained):
        raise ValueError(
            "excerpts: no explained feature has active and inactive excerpts; raise"
            " explanations.scored_texts, so that more held-out texts are read"
        )
    return result
