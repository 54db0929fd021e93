"""Features of contrast elements: what the probes read (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp.activations import mlp_outputs, word_mask
from workflow_scripts.lfp.autoencoder import SparseAutoencoder
from workflow_scripts.lfp.contrasts import ELEMENTS

KINDS = ("hidden", "reconstruction", "raw")


def encode_elements(
    tokenizer: PreTrainedTokenizerBase, triples: pd.DataFrame, element: str, max_tokens: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompt + element, and the indices of the element's own tokens.

    What follows the element is left out: a causal model's activations cannot depend on it. Sequences longer than
    `max_tokens` are cut from the left.
    """
    prompts, elements = list(triples["prompt"]), list(triples[element])
    texts = [prompt + value for prompt, value in zip(prompts, elements, strict=True)]
    encoded = tokenizer(texts, return_offsets_mapping=True)
    sequences, targets = [], []
    for ids, offsets, prompt, text in zip(encoded["input_ids"], encoded["offset_mapping"], prompts, texts, strict=True):
        own = word_mask(offsets, len(prompt), len(text))
        skip = max(0, len(ids) - max_tokens)
        sequences.append(ids[skip:])
        targets.append([index - skip for index in own if index >= skip])
    return sequences, targets


@torch.no_grad()
def element_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    triples: pd.DataFrame,
    kinds: Sequence[str],
    max_tokens: int,
    batch_size: int,
    elements: Sequence[str] = ELEMENTS,
) -> dict[str, np.ndarray]:
    """Mean features over each element's own tokens, concatenated over layers.

    Returns ``{kind}.{element}`` arrays [triple, features] for `kinds` of :data:`KINDS` and every element, a column
    of `triples` beside its ``prompt``:
    ``hidden`` is the autoencoder's code, ``reconstruction`` its output, ``raw`` the MLP output itself. A target
    word's pieces are averaged (paper); so are the tokens of an answer. Padding never enters.
    """
    layers = sorted(autoencoders)
    result = {}
    for element in elements:
        sequences, targets = encode_elements(tokenizer, triples, element, max_tokens)
        parts: dict[str, list[np.ndarray]] = {kind: [None] * len(sequences) for kind in kinds}
        for index, _, outputs in mlp_outputs(model, sequences, layers, tokenizer.pad_token_id, batch_size):
            counts = torch.tensor([len(targets[i]) for i in index])
            rows = torch.repeat_interleave(torch.arange(len(index)), counts)
            tokens = torch.tensor([token for i in index for token in targets[i]])
            for kind in kinds:
                means = [
                    _segment_means(
                        _features(autoencoders[layer], outputs[layer][rows, tokens].float(), kind), rows, counts
                    )
                    for layer in layers
                ]
                for i, values in zip(index, torch.cat(means, 1).cpu().numpy(), strict=True):
                    parts[kind][i] = values
        result |= {f"{kind}.{element}": np.stack(parts[kind]) for kind in kinds}
    return result


def _features(sae: SparseAutoencoder, x: torch.Tensor, kind: str) -> torch.Tensor:
    """One kind of features of `x` [token, d_model]."""
    if kind == "raw":
        return x
    code = sae.encode(x)
    return code if kind == "hidden" else sae.decode(code)


def _segment_means(values: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Means of `values` [token, features] over the tokens of each row: [row, features]."""
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, rows.to(values.device), values)
    return sums / counts.to(values.device)[:, None]
