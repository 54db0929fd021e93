"""Token ids: encoding, padding, positions, and the tokens of a word.

Every stage encodes by :func:`tokenize`, so that a text has the same tokens in all of them:

* Tokens that a tokenizer adds in front, such as the begin-of-text of Llama and Gemma, survive every
  cut. Those that it adds behind close documents, and never a prompt that a model goes on writing.
* A text that spells a control token, such as ``<|endoftext|>``, has the tokens of its characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

#: First character of a token in its text, and the one behind its last.
Span = tuple[int, int]
#: Texts that are encoded at once: of so many alone are the tokens behind a cut held.
TOGETHER = 512
#: Names of the tokens that stand for a byte, of which unknown characters are made.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Tokens(NamedTuple):
    """Ids and spans [text][token] of the tokens of texts.

    The span of an added token is empty and lies at the beginning or at the end.
    """

    ids: list[list[int]]
    spans: list[list[Span]]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    max_tokens: int | None = None,
    prompts: bool = False,
) -> Tokens:
    """The tokens of `texts` with those that `tokenizer` adds, at most `max_tokens` of each text.

    A document is cut at its end. A prompt (with `prompts`) is text that a model goes on writing: it
    is cut at its beginning and closed by no token. A prompt without any token has an end-of-text
    token, which leads texts in training.
    """
    front, behind = added_tokens(tokenizer)
    behind = [] if prompts else behind
    result = Tokens([], [])
    for ids, spans in pieces(tokenizer, texts):
        room = len(ids) if max_tokens is None else max(0, max_tokens - len(front) - len(behind))
        first = max(0, len(ids) - room) if prompts else 0
        ids, spans = ids[first : first + room], spans[first : first + room]
        end = spans[-1][1] if spans else 0
        lead = front if front or ids or not prompts else [tokenizer.eos_token_id]
        result.ids.append([*lead, *ids, *behind])
        result.spans.append([*[(0, 0)] * len(lead), *spans, *[(end, end)] * len(behind)])
    return result


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of the documents `texts`, each cut to `max_tokens`; empty texts are left out."""
    added = sum(map(len, added_tokens(tokenizer)))
    return [ids for ids in tokenize(tokenizer, texts, max_tokens).ids if len(ids) > added]


def _some_texts(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Short texts, of which one at least has a token; the long vocabulary is seldom asked for."""
    yield from "a0."
    yield from tokenizer.get_vocab()


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the tokens that `tokenizer` adds in front of every text, and behind it."""
    for text in _some_texts(tokenizer):
        [encoding] = tokenizer([text]).encodings
        places = [i for i, added in enumerate(encoding.special_tokens_mask) if not added]
        if places:
            return encoding.ids[: places[0]], encoding.ids[places[-1] + 1 :]
    raise ValueError(f"{tokenizer.name_or_path}: this tokenizer gives no text any token")


def pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> Iterator[tuple[list[int], list[Span]]]:
    """Yield the ids and spans of every text's tokens, without those that `tokenizer` adds."""
    texts, control = list(texts), control_tokens(tokenizer)
    for start in range(0, len(texts), TOGETHER):
        batch = tokenizer(
            texts[start : start + TOGETHER],
            add_special_tokens=False,
            split_special_tokens=True,
            verbose=False,
        )
        for encoding in batch.encodings:
            yield _without_control(tokenizer, encoding, control)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens that stand for no text.

    The token of unknown characters and the tokens of single bytes stand for some.
    """
    added, named = tokenizer.added_tokens_decoder, set(tokenizer.all_special_ids)
    special = {n for n, token in added.items() if token.special and not _BYTE.fullmatch(str(token))}
    return (special | named) - {tokenizer.unk_token_id}


def _without_control(
    tokenizer: PreTrainedTokenizerBase, encoding: Encoding, control: set[int]
) -> tuple[list[int], list[Span]]:
    """Ids and spans of the tokens of a text, with spelled control tokens in parts.

    Vocabularies of pieces or of whole words (SentencePiece's unigram models) hold control tokens as
    any other piece, and take them where they are spelled; so does a tokenizer whose files do not
    declare its end-of-text token a special one. Such a piece is read as its first character and its
    rest.
    """
    ids, spans = encoding.ids, encoding.offsets
    if control.isdisjoint(ids):
        return ids, spans
    model, parted = tokenizer.backend_tokenizer.model, []
    for n, span in zip(ids, spans, strict=True):
        name = tokenizer.convert_ids_to_tokens(n) if n in control else ""
        parts = [part.id for text in (name[:1], name[1:]) if text for part in model.tokenize(text)]
        parted += [(part, span) for part in parts or [n]]
    return [n for n, _ in parted], [span for _, span in parted]


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
