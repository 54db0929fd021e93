"""Words without feedback, by grammatical form: the middle element of a contrast triple.

The words are in ``neutral_words.yaml`` beside this module.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lfp.texts.words import Lexicon


def neutral_words(lexicon: Lexicon) -> dict[str, list[str]]:
    """Neutral words by form, without those that `lexicon` scores after all."""
    by_form = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {
        form: [word for word in words if word not in lexicon] for form, words in by_form.items()
    }
