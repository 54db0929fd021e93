"""Preferences: the log-odds of words, fitted on a task's training pairs.

Tasks that learn from pairs have no lexicon of their own, so that one is fitted for their
explanations and scores. A word counts once in an answer, however often it stands there: answers of
the training pairs hardly repeat a word, so that no weight says what repetition is worth, and a
broken model that repeats one good word for ever must not win.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lfp.feedback.rewards.base import Reward, Scale, TaskReward, TrainingText
from lfp.texts.words import count_words


class Preference(TaskReward):
    """The fitted log-odds of the completion; no task can name it as its reward."""

    def words(self, text: TrainingText) -> dict[str, float]:
        """The lexicon that is fitted on the training pairs."""
        from lfp.texts.corpora import preference_pairs

        pairs, _ = preference_pairs(text.frame)
        return fit_preference_lexicon(list(pairs["chosen"]), list(pairs["rejected"]))

    def score(self, scale: Scale) -> Reward:
        """The sum of log-odds over the completion's different words, whatever the scale."""
        from lfp.feedback.scoring import lexicon_reward

        return lexicon_reward(self.settings["rewarded"], 1.0, math.inf, "completion", _different)


def _different(text: str) -> list[str]:
    """The words of `text`, each of them once, in the order of their first places."""
    return list(dict.fromkeys(count_words(text)))


def fit_preference_lexicon(
    chosen: Sequence[str], rejected: Sequence[str], min_count: int = 5, penalty: float = 1.0
) -> dict[str, float]:
    """Word weights w of a Bradley-Terry model on the presence of words.

    The model is P(chosen > rejected) = sigmoid(w . (c - r)), where c and r are 1 for the words of
    an answer and 0 for others.

    It is fitted by logistic regression without intercept on the differences (each pair also
    mirrored), over words that occur in at least `min_count` answers. Weights are in log-odds. The
    result is empty where no word occurs that often.
    """
    import numpy as np
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    often = Counter(word for answer in (*chosen, *rejected) for word in set(count_words(answer)))
    words = sorted(word for word, count in often.items() if count >= min_count)
    if not words:
        return {}
    counter = CountVectorizer(analyzer=count_words, vocabulary=words, binary=True)
    present = counter.transform([*chosen, *rejected]).astype(np.float64)
    difference = present[: len(chosen)] - present[len(chosen) :]
    model = LogisticRegression(C=1.0 / penalty, fit_intercept=False, max_iter=1000)
    model.fit(sparse.vstack([difference, -difference]), np.repeat([1, 0], len(chosen)))
    return dict(zip(words, model.coef_[0].tolist(), strict=True))
