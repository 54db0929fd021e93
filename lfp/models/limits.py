"""Limits of a checkpoint that no text may pass: positions, and rows of the embedding.

A learned position or a token beyond them ends in ``index out of range in self`` in the middle of a
job, or stops the GPU. Rotary positions beyond those of the training end in no error, and in
activations that mean nothing. Here each is a message before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lfp.models.architectures import architecture
from lfp.models.tokens import control_tokens

#: Tokens of a tokenizer that stages put into texts, by their role.
ROLES = ("bos", "eos", "pad", "unk")


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


def check_checkpoint(folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the model in `folder` has a row of its embedding for every token of `tokenizer`.

    Special tokens that no text is given are not counted: Gemma 3 has one for images that its model
    of text alone has no row for. A language model needs an end-of-text token, which ends
    completions and pads where there is no token for padding. A folder may hold a tokenizer alone.

    Raises ValueError with the first token that has no row, or that is missing.
    """
    folder, config = Path(folder), None
    if (folder / "config.json").exists():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    names = getattr(config, "architectures", None) or []
    classifier = any("SequenceClassification" in name for name in names)
    if tokenizer.eos_token_id is None and not classifier:
        raise ValueError(
            f"{folder}: the tokenizer has no end-of-text token, at which completions end; name one"
            " of its tokens as eos_token in tokenizer_config.json"
        )
    if config is not None:
        _check_rows(folder, tokenizer, config.get_text_config())


def _check_rows(folder: Path, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raise ValueError where a token has no row in the embedding of a model of `config`."""
    rows = config.vocab_size
    wanted = {f"{role}_token": getattr(tokenizer, f"{role}_token_id") for role in ROLES}
    wanted["pad_token_id of config.json"] = getattr(config, "pad_token_id", None)
    text = set(tokenizer.get_vocab().values()) - control_tokens(tokenizer)
    wanted["last token of the vocabulary"] = max(text, default=None)
    for role, number in wanted.items():
        if number is not None and number >= rows:
            name = tokenizer.convert_ids_to_tokens(number)
            raise ValueError(
                f"{folder}: the {role}{f', {name!r},' if name else ''} has the id {number}, and the"
                f" model's embedding has rows for the ids 0 to {rows - 1} (vocab_size of"
                " config.json). Give the embedding rows for all tokens (resize_token_embeddings),"
                " or name a token of the vocabulary in its place, and save model and tokenizer"
                " (save_pretrained)"
            )
