"""Configurations of the small models that are pre-trained here."""

from __future__ import annotations

from transformers import (
    GemmaConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
)

from lfp.organisms import POSITIONS


def organism_config(
    family: str,
    vocab_size: int,
    eos: int,
    pad: int,
    n_layers: int,
    d_model: int,
    n_heads: int,
    d_mlp: int,
):
    """Configuration of a small model.

    Parameters
    ----------
    family
        ``gpt_neox``, ``gpt_neo`` or ``gemma``; ValueError for another one.
    vocab_size, eos, pad
        Entries of the vocabulary, and ids of the end-of-text and the padding token.
    n_layers, d_model, n_heads, d_mlp
        Number of blocks, width of the residual stream, number of attention heads, and width of the
        MLP's hidden layer.
    """
    ids = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": pad, "vocab_size": vocab_size}
    if family == "gpt_neox":
        return GPTNeoXConfig(
            hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=n_heads,
            intermediate_size=d_mlp, max_position_embeddings=POSITIONS, attention_dropout=0.0,
            hidden_dropout=0.0, tie_word_embeddings=False, **ids,
        )  # fmt: skip
    if family == "gpt_neo":
        kinds = ["global" if layer % 2 == 0 else "local" for layer in range(n_layers)]
        return GPTNeoConfig(
            hidden_size=d_model, num_layers=n_layers, num_heads=n_heads,
            intermediate_size=d_mlp, attention_types=[[[kind], 1] for kind in kinds],
            window_size=64, max_position_embeddings=POSITIONS, attention_dropout=0.0,
            embed_dropout=0.0, resid_dropout=0.0, **ids,
        )  # fmt: skip
    if family == "gemma":
        return GemmaConfig(
            hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=n_heads,
            num_key_value_heads=1, head_dim=d_model // n_heads, intermediate_size=d_mlp,
            max_position_embeddings=POSITIONS, **ids,
        )  # fmt: skip
    raise ValueError(f"organism architecture: expected gpt_neox, gpt_neo or gemma, got {family!r}")
