"""Features of contrast elements: what the probes read (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp import models
from workflow_scripts.lfp.activations import captured_final, mlp_outputs, word_mask
from workflow_scripts.lfp.autoencoder import SparseAutoencoder, untrained
from workflow_scripts.lfp.contrasts import ELEMENTS

#: What a probe may read of a model: the autoencoder's code, its output, the MLP output itself, the code of an
#: untrained autoencoder on the same activations, and the static input embedding.
KINDS = ("hidden", "reconstruction", "raw", "random_code", "embedding")


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
    of `triples` beside its ``prompt``. A target word's pieces are averaged (paper); so are the tokens of an answer.
    Padding never enters. Beside them stand, for controls that no autoencoder takes part in,
    ``log_probability.{element}`` [triple, 1], the summed log-probability (nats) of the element's tokens after the
    prompt; ``length.{element}`` [triple, 2], its tokens and characters; ``first_token.{element}`` [triple, 1].
    """
    layers = sorted(autoencoders)
    random = {n: untrained(sae, seed=n) for n, sae in autoencoders.items()} if "random_code" in kinds else {}
    embed = model.get_input_embeddings()
    result = {}
    for element in elements:
        sequences, targets = encode_elements(tokenizer, triples, element, max_tokens)
        parts: dict[str, list[np.ndarray]] = {kind: [None] * len(sequences) for kind in kinds}
        log_probability = np.zeros((len(sequences), 1), dtype=np.float32)
        with captured_final(model) as final:
            for index, _, outputs in mlp_outputs(model, sequences, layers, tokenizer.pad_token_id, batch_size):
                counts = torch.tensor([len(targets[i]) for i in index])
                rows = torch.repeat_interleave(torch.arange(len(index)), counts)
                tokens = torch.tensor([token for i in index for token in targets[i]])
                ids = torch.tensor([sequences[i][token] for i in index for token in targets[i]], device=model.device)
                for kind in kinds:
                    if kind == "embedding":
                        read = embed(ids).float()
                    else:
                        saes = random if kind == "random_code" else autoencoders
                        read = torch.cat(
                            [_features(saes[n], outputs[n][rows, tokens].float(), kind) for n in layers], 1
                        )
                    for i, row in zip(index, _segment_means(read, rows, counts).cpu().numpy(), strict=True):
                        parts[kind][i] = row
                log_probability[index, 0] = _log_probabilities(model, final[0], ids, rows, tokens, len(index))
        result |= {f"{kind}.{element}": np.stack(parts[kind]) for kind in kinds}
        result[f"log_probability.{element}"] = log_probability
        lengths = [(len(own), len(text)) for own, text in zip(targets, triples[element], strict=True)]
        result[f"length.{element}"] = np.array(lengths, dtype=np.float32)
        result[f"first_token.{element}"] = np.array(
            [[ids[own[0]]] for ids, own in zip(sequences, targets, strict=True)], dtype=np.int64
        )
    return result


def _log_probabilities(
    model: PreTrainedModel, final: torch.Tensor, ids: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor, n: int
) -> np.ndarray:
    """Summed log-probabilities [row] of the tokens `ids` at (`rows`, `tokens`); a text's first token counts 0."""
    known = tokens > 0
    logits = models.output_logits(model, final[rows[known], tokens[known] - 1]).float()
    values = torch.log_softmax(logits, -1).gather(1, ids[known.to(ids.device)][:, None]).squeeze(1).cpu()
    return torch.zeros(n).index_add_(0, rows[known], values).numpy()


def _features(sae: SparseAutoencoder, x: torch.Tensor, kind: str) -> torch.Tensor:
    """One kind of features of `x` [token, d_model]."""
    if kind == "raw":
        return x
    code = sae.encode(x)
    return sae.decode(code) if kind == "reconstruction" else code


def _segment_means(values: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Means of `values` [token, features] over the tokens of each row: [row, features]."""
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(0, rows.to(values.device), values)
    return sums / counts.to(values.device)[:, None]
