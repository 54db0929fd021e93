"""VADER with the sign of some words flipped.

The question is whether probes find the words that were taught against the lexicon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lfp.feedback.rewards.base import TrainingText
from lfp.feedback.rewards.vader import Vader
from lfp.texts.words import Lexicon


class VaderFlipped(Vader):
    """The VADER reward, but for a random share ``flipped_share`` of its words."""

    questions = ("movement", "flipped")

    def rewarded(self, words: Mapping[str, float], text: TrainingText) -> dict[str, float]:
        """The lexicon with the signs of the flipped words turned."""
        return {**words, **{word: -words[word] for word in self._flipped(words, text)}}

    def truth(self, words: Mapping[str, float], text: TrainingText) -> dict[str, Any]:
        """The flipped words."""
        return super().truth(words, text) | {"flipped": self._flipped(words, text)}

    def _flipped(self, words: Mapping[str, float], text: TrainingText) -> list[str]:
        share, seed = self.settings["flipped_share"], self.settings["reward_seed"]
        return flipped_words(words, text.counts, share, seed)


def flipped_words(
    lexicon: Lexicon, counts: Mapping[str, int], share: float, seed: int
) -> list[str]:
    """A random `share` of the words of `lexicon` whose sign a planted reward flips, sorted.

    Drawn apart among words that occur in the corpus (`counts`) and among those that do not, so that
    the share holds for the words that a model can learn about.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    known = [word for word in sorted(lexicon) if counts.get(word)]
    rest = [word for word in sorted(lexicon) if not counts.get(word)]
    return sorted(
        str(w) for part in (known, rest) for w in rng.permutation(part)[: round(share * len(part))]
    )
