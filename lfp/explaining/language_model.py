"""Explanations of features by a language model from exemplars, and its verdicts as a judge.

:func:`language_explanations` is the stage ``language_explanations`` as one call.

Paper section 3.4. Excerpts are of one length and activations on one scale for the whole feature;
the published code scaled every text by that text's maximum, so that any text with a positive value
could be a "top" one (paper_vs_code 1.12).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lfp.explaining.scores import Judge, Question
from lfp.services import prompts
from lfp.services.answers import REFUSAL
from lfp.services.client import Answer, Client, Request

#: Excerpts that a judge is shown at once.
PER_PROMPT = 5


def explain(client: Client, evidence: pd.DataFrame, task: str) -> pd.DataFrame:
    """The explanation of every feature of `evidence`.

    Columns are ``layer``, ``feature``, ``status``, ``explanation`` and ``related``.

    The model explains each feature and then classifies its explanation against `task`, a
    description in words of the texts that the feedback rewarded; it sees neither the lexicon nor a
    probe. ``status`` is that of the first answer that failed, or ``ok``; a feature without both
    answers is not related.
    """
    prompt, rows, requests = prompts.load("explain"), [], []
    for (layer, feature), group in evidence.groupby(["layer", "feature"]):
        lists = {
            kind: "\n".join(f"- {text}" for text in group.loc[group["kind"] == kind, "excerpt"])
            or "- (none)"
            for kind in ("top", "random")
        }
        rows.append({"layer": layer, "feature": feature})
        requests.append(Request(prompt.messages(**lists), prompt.schema, prompt.max_tokens))
    answers = [_checked(answer) for answer in client.ask(requests, "explanations")]
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


def _checked(answer: Answer) -> Answer:
    """An answer whose explanation is a refusal or has no word is no explanation."""
    if answer.status != "ok":
        return answer
    text = answer.value["explanation"].strip()
    if REFUSAL.match(text):
        return Answer("refused", text=text)
    return answer if re.search(r"\w", text) else Answer("unparsed", text=text, problem="no word")


def language_explanations(
    client: Client, table: pd.DataFrame, evidence: pd.DataFrame, task: str, prompt_sha: str
) -> pd.DataFrame:
    """The heuristic explainer's `table` with a language model's explanations and classes instead.

    Parameters
    ----------
    client
        Client of the service that explains.
    table
        Explanations of the heuristic, a row per feature. Their statistics of activation stay; the
        statistics that the heuristic classified by are missing in the result.
    evidence
        Exemplars of the explained features (:func:`lfp.explaining.exemplars.evidence`).
    task
        A description in words of the texts that the feedback rewarded.
    prompt_sha
        Digest of the prompts, which every row names.
    """
    answers = explain(client, evidence, task).set_index(["layer", "feature"])
    rows = table.set_index(["layer", "feature"])
    rows = rows.assign(
        explanation="", related=False, status=rows["status"].replace("ok", "skipped")
    )
    rows[["direction", "effect", "p", "q"]] = np.nan
    rows.update(answers[["status", "explanation"]])
    rows.loc[answers.index, "related"] = answers["related"]
    rows = rows.assign(
        related=rows["related"].astype(bool),
        explainer=f"{client.service.model}@{client.service.base_url}",
        explainer_kind="language model",
        prompt_sha=prompt_sha,
        uses_reward_lexicon=False,
    )
    return rows.reset_index()[[*table.columns, "prompt_sha"]]


def language_judge(client: Client) -> Judge:
    """A judge that asks a language model about :data:`PER_PROMPT` excerpts at a time.

    The excerpts are in a shuffled order.

    Where an answer cannot be parsed, or has another number of verdicts than excerpts, every verdict
    is None.
    """

    def judge(questions: Sequence[Question]) -> list[list[bool | None]]:
        requests, orders = [], []
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
                requests.append(Request(filled, prompt.schema, prompt.max_tokens))
        answers = iter(client.ask(requests, "verdicts"))
        result = []
        for (_, excerpts, _), parts in zip(questions, orders, strict=True):
            verdicts: list[bool | None] = [None] * len(excerpts)
            for part in parts:
                answer = next(answers)
                given = answer.value["verdicts"] if answer.status == "ok" else []
                if len(given) == len(part):
                    for i, verdict in zip(part, given, strict=True):
                        verdicts[i] = verdict
            result.append(verdicts)
        return result

    return judge
