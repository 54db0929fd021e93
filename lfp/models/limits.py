"""Positions of a model, which no text may pass.

A learned position beyond them ends in ``index out of range in self`` in the middle of a job, or
stops the GPU. Rotary positions beyond those of the training end in no error, and in activations
that mean nothing. Here both are a message before anything is computed. (Tokens beyond the rows of
the embedding: :mod:`lfp.files.vocabularies`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lfp.models.architectures import architecture


def most_positions(config: PreTrainedConfig) -> int | None:
    """The largest number of tokens that a model of `config` reads; None where it has no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def check_length(config: PreTrainedConfig, tokens: int) -> None:
    """Raise ValueError where a text of so many `tokens` is too long for a model of `config`."""
    most = most_positions(config)
    if most is not None and tokens > most:
        raise ValueError(
            f"a text of {tokens} tokens is longer than the {most} positions of the model"
            f" (max_position_embeddings of its config.json). Lower the setting that cuts the texts"
            f" of this stage so that no text, with what is sampled behind it, has more than {most}"
            f" tokens: max_tokens, max_length, neutral_tokens, context, or new_tokens with"
            f" prompt_tokens or prefix_tokens"
        )


def check_texts(
    config: PreTrainedConfig, texts: Sequence[Sequence[int]], new_tokens: int = 0
) -> None:
    """Raise ValueError where one of `texts`, with `new_tokens` behind it, is too long.

    Long work checks all of its texts so, before it begins.
    """
    if texts:
        check_length(config, max(map(len, texts)) + new_tokens)


def guarded(model: PreTrainedModel) -> PreTrainedModel:
    """`model`, whose every forward pass checks the length of its texts first.

    The check stands at the module that holds the blocks: every pass goes through it.
    """
    holder = model.get_submodule(architecture(model).blocks.rpartition(".")[0])
    holder.register_forward_pre_hook(_check_pass, with_kwargs=True)
    return model


def _check_pass(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Check the length of what a forward pass reads, with what its cache has read."""
    named = named | ({"input_ids": inputs[0]} if inputs else {})
    ids, embedded = named.get("input_ids"), named.get("inputs_embeds")
    length = ids.shape[1] if embedded is None else embedded.shape[1]
    cache = named.get("past_key_values")
    check_length(module.config, length + (0 if cache is None else int(cache.get_seq_length())))
