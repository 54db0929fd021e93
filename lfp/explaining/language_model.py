"""Explanations of features by a language model: what it is shown, what it answers, and its verdicts
as a judge.

Paper section 3.4. Excerpts are of one length and activations on one scale for the whole feature;
the published code scaled every text by its own maximum, so that any text with a positive value
could be a "top" one (paper_vs_code 1.12).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.explaining.scores import Judge, Question
from lfp.services import prompts
from lfp.services.client import Client, Request

#: Excerpts that a judge is shown at once.
PER_PROMPT = 5


def explain(client: Client, evidence: pd.DataFrame, task: str) -> pd.DataFrame:
    """A row per feature of `evidence`: ``layer``, ``feature``, ``status``, ``explanation``,
    ``related``.

    The model explains each feature and then classifies its explanation against `task`, the
    description of what the feedback rewarded; it sees neither the lexicon nor a probe. ``status``
    is that of the first answer that failed, or ``ok``; a feature without both answers is not
    related.
    """
    prompt, rows, asked = prompts.load("explain"), [], []
    for (layer, feature), group in evidence.groupby(["layer", "feature"]):
        lists = {
            kind: "\n".join(f"- {text}" for text in group.loc[group["kind"] == kind, "excerpt"])
            or "- (none)"
            for kind in ("top", "random")
        }
        rows.append({"layer": layer, "feature": feature})
        asked.append(Request(prompt.messages(**lists), prompt.schema, prompt.max_tokens))
    answers = client.ask(asked, "explanations")
    explained = [answer.status == "ok" for answer in answers]
    texts = [
        " ".join(a.value["explanation"].split()) if ok else ""
        for a, ok in zip(answers, explained, strict=True)
    ]
    prompt = prompts.load("classify")
    questions = [
        Request(prompt.messages(task=task, explanation=text), prompt.schema, prompt.max_tokens)
        for text, ok in zip(texts, explained, strict=True)
        if ok
    ]
    verdicts = iter(client.ask(questions, "classifications"))
    for row, answer, text in zip(rows, answers, texts, strict=True):
        verdict = next(verdicts) if answer.status == "ok" else answer
        row["status"] = verdict.status
        row["explanation"] = text
        row["related"] = verdict.status == "ok" and bool(verdict.value["related"])
    return pd.DataFrame(rows, columns=["layer", "feature", "status", "explanation", "related"])


def language_judge(client: Client) -> Judge:
    """A judge that asks a language model, :data:`PER_PROMPT` excerpts at a time and in a shuffled
    order.

    Of an answer that cannot be parsed, or that has another number of verdicts than excerpts, every
    verdict is None.
    """

    def judge(questions: Sequence[Question]) -> list[list[bool | None]]:
        asked, orders = [], []
        for explanation, excerpts, of_marks in questions:
            prompt = prompts.load("fuzz" if of_marks else "detect")
            order = np.random.default_rng(0).permutation(len(excerpts))
            parts = [
                order[start : start + PER_PROMPT] for start in range(0, len(order), PER_PROMPT)
            ]
            orders.append(parts)
            for part in parts:
                listed = "\n".join(
                    f"{n}. {' '.join(excerpts[i].split())}" for n, i in enumerate(part, 1)
                )
                filled = prompt.messages(explanation=explanation, excerpts=listed, n=len(part))
                asked.append(Request(filled, prompt.schema, prompt.max_tokens))
        answers = iter(client.ask(asked, "verdicts"))
        result = []
        for (_, excerpts, _), parts in zip(questions, orders, strict=True):
            verdicts: list[bool | None] = [None] * len(excerpts)
            for part in parts:
                answer = next(answers)
                own = answer.value["verdicts"] if answer.status == "ok" else []
                if len(own) == len(part):
                    for i, verdict in zip(part, own, strict=True):
                        verdicts[i] = verdict
            result.append(verdicts)
        return result

    return judge
