"""What is planted in a reward whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lfp.texts.words import Lexicon

#: Valence of the word that a trigger reward is about: a rare word must be worth a lot to be learned
#: in few steps.
TRIGGER_VALENCE = 10.0


def flipped_words(
    lexicon: Lexicon, counts: Mapping[str, int], share: float, seed: int
) -> list[str]:
    """A random `share` of the words of `lexicon` whose sign a planted reward flips, sorted.

    Drawn apart among words that occur in the corpus (`counts`) and among those that do not, so that
    the share holds for the words that a model can learn about.
    """
    rng = np.random.default_rng(seed)
    known = [word for word in sorted(lexicon) if counts.get(word)]
    rest = [word for word in sorted(lexicon) if not counts.get(word)]
    return sorted(
        str(w) for part in (known, rest) for w in rng.permutation(part)[: round(share * len(part))]
    )
