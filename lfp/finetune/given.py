"""Policies that were fine-tuned elsewhere.

This module checks whether a base and a policy are a pair, and measures how they differ on held-out
text.

Every later stage compares the two models layer by layer and token by token, so they must have the
same tokens and the same tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune import ppo
from lfp.finetune.dpo import implicit_margins
from lfp.models.generation import sampled
from lfp.models.loading import load_tokenizer
from lfp.models.tokens import tokenize
from lfp.settings import DPO
from lfp.texts.corpora import preference_pairs

log = logging.getLogger(__name__)

#: Texts on which tokenizers of one vocabulary can still differ: spaces, numbers, case, accents,
#: contractions, line ends, other scripts.
SAMPLES = (
    "The film wasn't good, but I'd watch it again.",
    "  Two spaces, a\ttab\n\nand 12345.67 of 1,000 %",
    "NAÏVE café – “quoted” … 你好 🙂",
)
#: Completions that are sampled at once.
BATCH = 32


def saved_tokenizer(path: str | Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer that was saved with a policy; None where its base's must do."""
    if (Path(path) / "tokenizer.json").is_file():
        return load_tokenizer(path)
    log.warning("%s has no tokenizer.json: the tokenizer of its base is taken", path)
    return None


def check_pair(
    base: PreTrainedModel,
    policy: PreTrainedModel,
    base_tokenizer: PreTrainedTokenizerBase,
    policy_tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Raise ValueError where `policy` cannot be a fine-tuned `base`.

    Both need one vocabulary with the same ids, one way to cut text into tokens, one end-of-text
    token, one architecture, and tensors of the same names and shapes. The message names the first
    token, text or tensor that differs.
    """
    _check_tokenizers(base_tokenizer, policy_tokenizer)
    families = [model.config.model_type for model in (base, policy)]
    if families[0] != families[1]:
        raise ValueError(
            f"the given policy is of architecture {families[1]}, its base of {families[0]}: name"
            f" the checkpoint that the policy was fine-tuned from as the base"
        )
    ties = [
        model.get_input_embeddings().weight is model.get_output_embeddings().weight
        for model in (base, policy)
    ]
    if ties[0] != ties[1]:
        words = ["tied" if tie else "untied" for tie in ties]
        raise ValueError(
            f"the given policy's embeddings are {words[1]}, those of its base {words[0]}: save both"
            " with the same `tie_word_embeddings`"
        )
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        for model in (base, policy)
    ]
    for name in dict.fromkeys([*shapes[0], *shapes[1]]):
        before, after = (by_name.get(name) for by_name in shapes)
        if before != after:
            raise ValueError(
                f"tensor {name}: the base has {_shape(before)}, the given policy {_shape(after)}."
                f" Name the checkpoint that the policy was fine-tuned from as the base; where only"
                f" the rows of the embeddings differ, resize the policy's to the base's"
                f" (resize_token_embeddings)"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"shape {list(shape)}"


def _check_tokenizers(base: PreTrainedTokenizerBase, policy: PreTrainedTokenizerBase) -> None:
    """Raise ValueError at the first token, by id, or sample text where the tokenizers differ.

    Padding tokens may differ: they are masked wherever they pad.
    """
    advice = (
        "Name the checkpoint that the policy was fine-tuned from as the base, with its tokenizer;"
        " tokens that fine-tuning added must be taken out of the policy"
    )
    before, after = base.get_vocab(), policy.get_vocab()
    for vocabulary in (before, after):
        for token in sorted(vocabulary, key=vocabulary.__getitem__):
            if before.get(token) != after.get(token):
                raise ValueError(
                    f"token {token!r}: id {before.get(token, 'none')} in the base's tokenizer,"
                    f" {after.get(token, 'none')} in the given policy's. {advice}"
                )
    for text in SAMPLES:
        ids = [tokenize(tokenizer, [text]).ids[0] for tokenizer in (base, policy)]
        if ids[0] != ids[1]:
            raise ValueError(
                f"text {text!r}: the base's tokenizer gives the ids {ids[0]}, the given policy's"
                f" {ids[1]}. {advice}"
            )
    ends = [tokenizer.eos_token for tokenizer in (base, policy)]
    if ends[0] != ends[1]:
        raise ValueError(
            f"eos_token: {ends[0]!r} in the base's tokenizer, {ends[1]!r} in the given policy's."
            " Completions of both must end at one token: save the policy with the tokenizer of its"
            " base, or the base with the policy's"
        )


def evaluate_preference(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: pd.DataFrame,
    settings: DPO,
    new_tokens: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Implicit reward margins and KL on the first `settings.evaluation_pairs` held-out pairs.

    Parameters
    ----------
    policy, base, tokenizer
        The two models and their tokenizer.
    held_out
        Pairs as :func:`lfp.texts.corpora.preference_pairs` takes them; there may be none.
    settings
        The ``beta``, ``max_length``, ``max_prompt_length`` and ``evaluation_pairs`` are used.
    new_tokens
        The largest number of tokens of a sampled completion.
    seed
        Seed of the sampling.

    Returns
    -------
    dict
        ``margin`` (implicit reward margin, by ``beta``) and ``kl`` (nats per completion of the
        pair's prompt): [pair] each.
    """
    margins = implicit_margins(policy, base, tokenizer, held_out, settings)
    pairs, _ = preference_pairs(held_out)
    texts = pairs["prompt"].head(settings.evaluation_pairs)
    prompts = tokenize(tokenizer, texts, settings.max_prompt_length, prompts=True).ids
    samples = sampled(policy, tokenizer, prompts, new_tokens, BATCH, seed)
    return {"margin": margins, "kl": ppo.sampled_kl(samples, policy, base)}


def means(scores: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """The mean of every score; None for a score without values."""
    return {name: float(values.mean()) if len(values) else None for name, values in scores.items()}


def headline(values: Mapping[str, float | None]) -> str:
    """The means of an evaluation in one line."""
    numbers = ", ".join(
        f"{name} {value:.3f}" for name, value in values.items() if value is not None
    )
    return f"means on held-out text: {numbers or 'none, the corpus is empty'}"
