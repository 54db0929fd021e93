"""The readout of behaviour: which words and attributes a policy's completions have more of.

It is the baseline that readouts of internals must beat: no weight and no activation is read. Base
and policy complete the same prompts with common random numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lfp.change.choice import Pair
from lfp.models.generation import decode_responses, masked_rows, sampled
from lfp.texts.words import count_words

#: Attributes of a completion that no single word has.
ATTRIBUTES: dict[str, Callable[[str], float]] = {
    "characters": len,
    "words": lambda text: len(count_words(text)),
    "different words": lambda text: len(set(count_words(text))),
    "sentence ends": lambda text: len(re.findall(r"[.!?](?:\s|$)", text)),
    "exclamation marks": lambda text: text.count("!"),
    "question marks": lambda text: text.count("?"),
    "digits": lambda text: sum(character.isdigit() for character in text),
    "list items": lambda text: len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s", text, re.MULTILINE)),
}


def completions(
    pair: Pair, prompts: Sequence[list[int]], new_tokens: int, batch_size: int, seed: int
) -> tuple[list[str], list[str]]:
    """What base and policy write after `prompts`, with common random numbers.

    Parameters
    ----------
    pair
        Base and policy.
    prompts
        Token ids of the prompts.
    new_tokens
        Tokens of a completion, at most.
    batch_size
        Prompts that are completed at once.
    seed
        Seed of the samples.
    """
    texts: list[list[str]] = []
    for model in (pair.base, pair.policy):
        texts.append([])
        for part in sampled(model, pair.tokenizer, prompts, new_tokens, batch_size, seed):
            rows = masked_rows(part.response, part.mask)
            texts[-1] += decode_responses(pair.tokenizer, part.prompts, rows)[1]
    return texts[0], texts[1]


def completion_readings(
    base: Sequence[str], policy: Sequence[str], words: Sequence[str]
) -> pd.DataFrame:
    """How much more of every word and attribute the `policy` writes than the `base`.

    The value of a word is the logarithm of the ratio of its rates, each with half an occurrence
    added, and its error that of two Poisson counts. The value of an attribute is the mean of its
    paired difference over prompts, in standard deviations of the base's completions.

    Parameters
    ----------
    base, policy
        Completions of the same prompts.
    words
        Candidates.

    Returns
    -------
    pandas.DataFrame
        A row per word and attribute: ``part`` (``rate``), ``kind`` (``word``, ``attribute``),
        ``unit``, ``value``, ``error`` and ``contexts`` (prompts).
    """
    counts = [Counter(word for text in texts for word in count_words(text))
              for texts in (base, policy)]  # fmt: skip
    before, after = (np.array([of[word] for word in words]) + 0.5 for of in counts)
    totals = [sum(of.values()) + 0.5 * len(words) for of in counts]
    rates = pd.DataFrame({
        "kind": "word", "unit": list(words),
        "value": np.log(after / totals[1]) - np.log(before / totals[0]),
        "error": np.sqrt(1 / after + 1 / before),
    })  # fmt: skip
    rows = []
    for name, measure in ATTRIBUTES.items():
        values = np.array([[measure(text) for text in texts] for texts in (base, policy)], float)
        scale = values[0].std() or 1.0
        difference = (values[1] - values[0]) / scale
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        rows.append(("attribute", name, difference.mean(), error))
    attributes = pd.DataFrame(rows, columns=["kind", "unit", "value", "error"])
    frame = pd.concat([rates, attributes], ignore_index=True)
    return frame.assign(part="rate", contexts=float(len(base)))
