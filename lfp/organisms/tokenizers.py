"""BPE tokenizers that are trained on a corpus of the workflow."""

from __future__ import annotations

import json
from collections.abc import Iterable

from transformers import (
    PreTrainedTokenizerFast,
)

EOS, PAD = "<|endoftext|>", "<|padding|>"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, style: str = "byte_level"
) -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer on `texts`.

    It is ``byte_level`` as of GPT-2 and GPT-NeoX, or ``metaspace`` as of Gemma.

    Both reconstruct any text that they encode from the corpus's alphabet; byte-level BPE
    reconstructs any text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if style == "byte_level":
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
        raise ValueError(f"tokenizer style: expected 'byte_level' or 'metaspace', got {style!r}")
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
