"""Token ids: encoding, padding, positions, and the tokens of a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], **options: Any
) -> Mapping[str, list[Any]]:
    """The output of `tokenizer` for `texts`.

    For no text, where a tokenizer would fail, it has empty lists.
    """
    texts = list(texts)
    if not texts:
        return {"input_ids": [], "offset_mapping": []}
    return tokenizer(texts, **options)


def pad_batch(
    sequences: Sequence[Sequence[int]], pad: int, device: str, left: bool = False
) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` [batch, token] of sequences padded to the longest."""
    length = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), length), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        part = slice(length - len(sequence), None) if left else slice(len(sequence))
        ids[row, part] = torch.tensor(sequence, dtype=torch.long)
        mask[row, part] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that start at 0 on the first real token.

    So left padding does not shift a sequence.
    """
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of `texts`, each cut to `max_tokens`; empty texts are left out."""
    encoded = tokenize(tokenizer, texts, truncation=True, max_length=max_tokens)
    return [ids for ids in encoded["input_ids"] if ids]


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the tokens that `tokenizer` adds in front of every text, and behind it."""
    for text in ("a", "0", ".", *tokenizer.get_vocab()):
        [encoding] = tokenizer([text]).encodings
        places = [i for i, added in enumerate(encoding.special_tokens_mask) if not added]
        if places:
            return encoding.ids[: places[0]], encoding.ids[places[-1] + 1 :]
    raise ValueError(f"{tokenizer.name_or_path}: this tokenizer gives no text any token")


def word_mask(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Indices of the tokens whose characters overlap [`start`, `end`): the pieces of one word."""
    return [
        i
        for i, (first, last) in enumerate(offsets)
        if first < end and last > start and last > first
    ]


def length_batches(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Indices in batches of like length, so that little is padded; every index occurs once."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
