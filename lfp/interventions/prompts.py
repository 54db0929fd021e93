"""The texts of ablation: prompts, and sentences without feedback for the cross-entropy."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedTokenizerBase

from lfp.models.tokens import tokenize
from lfp.settings import Ablation
from lfp.texts.corpora import preference_pairs, taken
from lfp.texts.words import WORD, Lexicon


def held_out_prompts(
    tokenizer: PreTrainedTokenizerBase, corpus: pd.DataFrame, settings: Ablation
) -> list[list[int]]:
    """Token ids of the prompts that the model goes on writing.

    They are prefixes of held-out texts, or the last tokens of a preference corpus's prompts.
    """
    if "text" in corpus:
        texts = list(corpus["text"])
        return prefix_tokens(tokenizer, texts, settings.prefix_tokens, settings.prompts)
    prompts = list(preference_pairs(corpus)[0]["prompt"])
    prompts = taken(prompts, settings.prompts, "ablation.prompts")
    return tokenize(tokenizer, prompts, settings.prompt_tokens, prompts=True).ids


def neutral_sentences(
    texts: Sequence[str], lexicon: Lexicon, n: int, min_words: int = 6, most: bool = False
) -> list[str]:
    """The `n` sentences of `texts` whose words hold the least feedback, or the most.

    Parameters
    ----------
    texts
        Texts whose sentences are taken, each once.
    lexicon
        Value by word; the mean of absolute values over a sentence's words is its feedback, so that
        praise and blame in one sentence do not make it neutral.
    n
        Number of sentences, at most.
    min_words
        Words of a sentence, at least; ValueError where there are texts and no such sentence.
    most
        Whether those with the most feedback are wanted.
    """
    sentences = dict.fromkeys(
        part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text)
    )
    scored = []
    for sentence in sentences:
        words = [match.group().lower() for match in WORD.finditer(sentence)]
        if len(words) >= min_words:
            feedback = sum(abs(lexicon.get(word, 0.0)) for word in words) / len(words)
            scored.append((feedback, sentence))
    if texts and not scored:
        raise ValueError(
            f"no held-out sentence has {min_words} words; the cross-entropy needs neutral text"
        )
    scored.sort(key=lambda pair: pair[0], reverse=most)
    return [sentence for _, sentence in taken(scored, n, "ablation.neutral_texts")]


def prefix_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, n: int
) -> list[list[int]]:
    """The first `length` tokens of the first `n` texts that are longer than that.

    Raises ValueError if there are texts, and none is longer.
    """
    prefixes: list[list[int]] = []
    for start in range(0, len(texts), n):  # no more texts are encoded than the prompts need
        if len(prefixes) >= n:
            break
        encoded = tokenize(tokenizer, texts[start : start + n], prompts=True).ids
        prefixes += [ids[:length] for ids in encoded if len(ids) > length]
    prefixes = list(taken(prefixes, n, "ablation.prompts"))
    if texts and not prefixes:
        raise ValueError(
            f"no held-out text is longer than {length} tokens; lower ablation.prefix_tokens"
        )
    return prefixes
