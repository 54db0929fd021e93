"""The features that are related to the feedback by the heuristic explainer's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lfp.settings import Explanations
from lfp.statistics.multiple import benjamini_hochberg

EXPLAINER = "heuristic-v1"


def classify_features(
    table: pd.DataFrame, lexicon: Mapping[str, Any], feedback: str, settings: Explanations
) -> pd.DataFrame:
    """The classification of a table for a task's feedback.

    It is :func:`classify_by_name` for a reward of one word, which has no distribution of valences
    to test, else :func:`classify`.
    """
    named, table = table["named"], table.drop(columns="named")
    if feedback == "reward" and len(lexicon["rewarded"]) == 1:
        return classify_by_name(table, named, next(iter(lexicon["rewarded"])))
    return classify(table, feedback, settings)


def classify(frame: pd.DataFrame, feedback: str, settings: Explanations) -> pd.DataFrame:
    """Add ``q`` (Benjamini-Hochberg over the explained features) and ``related``.

    A feature is related when q is below ``settings.false_discovery_rate`` *and* its effect is at
    least ``settings.min_valence`` (`feedback` ``reward``) or ``settings.min_auc`` (``preference``):
    with many words, a tiny preference for scored ones is significant and means nothing.
    """
    of_lexicon = feedback == "reward"
    least = settings.min_valence if of_lexicon else settings.min_auc
    explained = (frame["status"] == "ok").to_numpy()
    q = np.ones(len(frame))
    q[explained] = benjamini_hochberg(frame.loc[explained, "p"].to_numpy())
    significant = q < settings.false_discovery_rate
    related = explained & significant & (frame["effect"] >= least).to_numpy()
    return frame.assign(
        q=q,
        related=related,
        explainer=EXPLAINER,
        explainer_kind="heuristic",
        uses_reward_lexicon=of_lexicon,
    )


def classify_by_name(frame: pd.DataFrame, named: pd.Series, word: str) -> pd.DataFrame:
    """Set ``related`` for the features whose explanation lists `word`; ``q`` is p.

    This is for a reward of one word: no shuffle of valences among words of its frequency can be
    rare enough to survive a correction over features. `named` has the set of words that each
    feature's explanation lists, without those of its phrasing.
    """
    related = (frame["status"] == "ok") & named.map(lambda words: word in words)
    return frame.assign(
        q=frame["p"],
        related=related,
        explainer=EXPLAINER,
        explainer_kind="heuristic",
        uses_reward_lexicon=True,
    )


def headline(table: pd.DataFrame) -> str:
    """The numbers of explained features and of those related to the feedback, in one line."""
    explained = int((table["status"] == "ok").sum())
    return f"{int(table['related'].sum())} related of {explained} explained features"
