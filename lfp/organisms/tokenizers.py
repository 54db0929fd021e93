"""Tokenizers that are trained on a corpus of the workflow, by byte-pair encoding (BPE)."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import (
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS, PAD = "<|endoftext|>", "<|padding|>"


def train_tokenizer(
    texts: Sequence[str], vocab_size: int, style: str = "byte_level"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`, of at most `vocab_size` tokens.

    It is ``byte_level`` as of GPT-2 and GPT-NeoX, ``byte_level_pruned``, which keeps the tokens of
    that one that `texts` use, or ``metaspace`` as of Gemma. All reconstruct any text that they
    encode from the corpus's alphabet; those of bytes reconstruct any text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if style in ("byte_level", "byte_level_pruned"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    elif style == "metaspace":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split("\n", "isolated"),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.Metaspace(prepend_scheme="never"),
            ]
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        alphabet = ["\n"]
    else:
        raise ValueError(
            "tokenizer style: expected 'byte_level', 'byte_level_pruned' or 'metaspace', got"
            f" {style!r}"
        )
    special = [EOS, PAD] + (
        [f"<0x{byte:02X}>" for byte in range(256)] if style == "metaspace" else []
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if style == "byte_level_pruned":
        tokenizer = _used_alone(tokenizer, texts)
    # The trainer makes every reserved token a special one, and bytes are text: they are decoded.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in (EOS, PAD)]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        eos_token=EOS,
        bos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def _used_alone(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokenizer:
    """The byte-level `tokenizer` with those tokens alone that its `texts` use, and all bytes.

    Half of a BPE vocabulary are steps on the way to whole words, which no text has, and every one
    of them is a row of the output that costs as much as a word. Without the steps a text is cut
    into its longest tokens from the left.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    used = {token for encoding in tokenizer.encode_batch(texts) for token in encoding.tokens}
    used |= {EOS, PAD, *pre_tokenizers.ByteLevel.alphabet()}
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    kept = [token for token, _ in by_id if token in used]
    # No word is without a token, as all bytes are tokens; the model wants the name of one for it.
    longest_first = models.WordPiece(
        {token: number for number, token in enumerate(kept)},
        unk_token=EOS,
        continuing_subword_prefix="",
        max_input_chars_per_word=sys.maxsize,
    )
    result = Tokenizer(longest_first)
    result.pre_tokenizer, result.decoder = tokenizer.pre_tokenizer, decoders.ByteLevel()
    result.add_special_tokens([EOS, PAD])
    return result
