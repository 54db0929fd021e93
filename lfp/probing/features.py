"""Features of contrast elements: what the probes read (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models import architectures
from lfp.models.architectures import output_logits
from lfp.models.hooks import continuations
from lfp.models.tokens import word_mask
from lfp.probing.contrasts import ELEMENTS
from lfp.sae.autoencoder import SparseAutoencoder, untrained

#: What a probe may read of a model: the autoencoder's code, its output, the MLP output itself, the
#: code of an untrained autoencoder on the same activations, and the static input embedding.
KINDS = ("latents", "reconstruction", "raw", "random_code", "embedding")


def encode_elements(
    tokenizer: PreTrainedTokenizerBase,
    triples: pd.DataFrame,
    elements: Sequence[str],
    max_tokens: int,
) -> tuple[list[list[list[int]]], list[list[list[int]]]]:
    """Token ids of prompt + element, and the indices of the element's own tokens, by element and
    triple.

    What follows the element is left out: a causal model's activations cannot depend on it. Where a
    sequence of a triple is longer than `max_tokens`, all of them are cut from the left alike, so
    that they go on sharing their prompt.
    """
    prompts = list(triples["prompt"])
    sequences, targets = [], []
    for element in elements:
        texts = [prompt + value for prompt, value in zip(prompts, triples[element], strict=True)]
        encoded = tokenizer(texts, return_offsets_mapping=True)
        sequences.append(encoded["input_ids"])
        spans = zip(encoded["offset_mapping"], prompts, texts, strict=True)
        targets.append(
            [word_mask(offsets, len(prompt), len(text)) for offsets, prompt, text in spans]
        )
    for i in range(len(prompts)):
        skip = max(0, max(len(own[i]) for own in sequences) - max_tokens)
        for ids, own in zip(sequences, targets, strict=True):
            ids[i], own[i] = ids[i][skip:], [index - skip for index in own[i] if index >= skip]
    return sequences, targets


def shared_tokens(sequences: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> int:
    """How many first tokens `sequences` share ahead of every token of `targets` and of the one
    before it.
    """
    most = min(max(0, min(own) - 1) for own in targets)
    differ = (i for i in range(most) if len({ids[i] for ids in sequences}) > 1)
    return next(differ, most)


@torch.inference_mode()
def element_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    triples: pd.DataFrame,
    kinds: Sequence[str],
    max_tokens: int,
    batch_size: int,
    elements: Sequence[str] = ELEMENTS,
    state_path: str | Path | None = None,
) -> dict[str, np.ndarray]:
    """Mean features over each element's own tokens, concatenated over layers.

    Returns ``{kind}.{element}`` arrays [triple, features] for `kinds` of :data:`KINDS` and every
    element, a column of `triples` beside its ``prompt``. A target word's pieces are averaged
    (paper); so are the tokens of an answer. Padding never enters. Beside them stand, for controls
    that no autoencoder takes part in, ``log_probability.{element}`` [triple, 1], the summed
    log-probability (nats) of the element's tokens after the prompt; ``length.{element}`` [triple,
    2], its tokens and characters; ``first_token.{element}`` [triple, 1].

    The model reads the tokens that a triple's elements share once (`batch_size` counts sequences,
    three to a triple). With `state_path` what is read is kept there once a minute, and an
    interrupted call goes on behind it.
    """
    layers = sorted(autoencoders)
    if triples.empty:
        return _of_no_triples(model, autoencoders, kinds, elements)
    random = (
        {n: untrained(sae, seed=n) for n, sae in autoencoders.items()}
        if "random_code" in kinds
        else {}
    )
    embed = model.get_input_embeddings()
    sequences, targets = encode_elements(tokenizer, triples, elements, max_tokens)
    shared = [
        shared_tokens([s[i] for s in sequences], [t[i] for t in targets])
        for i in range(len(triples))
    ]
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    result = {name: value.numpy() for name, value in tensors.items()}
    done, clock = counters["batches"], Clock()

    def put(name: str, rows: np.ndarray, values: np.ndarray) -> None:
        if name not in result:
            result[name] = np.zeros((len(triples), values.shape[1]), values.dtype)
        result[name][rows] = values

    for rows, outputs, final in continuations(
        model,
        sequences,
        shared,
        layers,
        tokenizer.pad_token_id,
        max(1, batch_size // len(elements)),
        done,
    ):
        for e, element in enumerate(elements):
            own = [
                (place, token - shared[i])
                for place, i in enumerate(rows)
                for token in targets[e][i]
            ]
            place, token = torch.tensor(own, dtype=torch.long).T
            counts = torch.bincount(place, minlength=len(rows))
            ids = torch.tensor(
                [sequences[e][i][t] for i in rows for t in targets[e][i]], device=model.device
            )
            for kind in kinds:
                if kind == "embedding":
                    read = embed(ids).float()
                else:
                    saes = random if kind == "random_code" else autoencoders
                    read = torch.cat(
                        [
                            _features(saes[n], outputs[n][e][place, token].float(), kind)
                            for n in layers
                        ],
                        1,
                    )
                put(f"{kind}.{element}", rows, _segment_means(read, place, counts).cpu().numpy())
            values = _log_probabilities(model, final[e], ids, place, token, len(rows))
            put(f"log_probability.{element}", rows, values[:, None])
        done += 1
        if state_path and clock.due():
            save_tensors(
                state_path,
                {n: torch.from_numpy(value) for n, value in result.items()},
                {"batches": done},
            )
    for e, element in enumerate(elements):
        lengths = [
            (len(own), len(text)) for own, text in zip(targets[e], triples[element], strict=True)
        ]
        result[f"length.{element}"] = np.array(lengths, dtype=np.float32)
        first = [[ids[own[0]]] for ids, own in zip(sequences[e], targets[e], strict=True)]
        result[f"first_token.{element}"] = np.array(first, dtype=np.int64)
    return result


def _of_no_triples(
    model: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    kinds: Sequence[str],
    elements: Sequence[str],
) -> dict[str, np.ndarray]:
    """What :func:`element_features` returns where there is no triple: arrays of no rows."""
    codes, width = sum(sae.d_sae for sae in autoencoders.values()), architectures.width(model)
    columns = {"latents": codes, "random_code": codes, "embedding": width}
    sizes = {kind: columns.get(kind, width * len(autoencoders)) for kind in kinds} | {
        "log_probability": 1,
        "length": 2,
    }
    result = {
        f"{kind}.{e}": np.zeros((0, size), np.float32)
        for kind, size in sizes.items()
        for e in elements
    }
    return result | {f"first_token.{e}": np.zeros((0, 1), np.int64) for e in elements}


def _log_probabilities(
    model: PreTrainedModel,
    final: torch.Tensor,
    ids: torch.Tensor,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    n: int,
) -> np.ndarray:
    """Summed log-probabilities [row] of the tokens `ids` at (`rows`, `tokens`); a text's first
    token counts 0.
    """
    known = tokens > 0  # the token before is always among those read, unless there is none
    logits = output_logits(model, final[rows[known], tokens[known] - 1]).float()
    values = (
        torch.log_softmax(logits, -1).gather(1, ids[known.to(ids.device)][:, None]).squeeze(1).cpu()
    )
    return torch.zeros(n).index_add_(0, rows[known], values).numpy()


def _features(sae: SparseAutoencoder, x: torch.Tensor, kind: str) -> torch.Tensor:
    """One kind of features of `x` [token, d_model]."""
    if kind == "raw":
        return x
    code = sae.encode(x)
    return sae.decode(code) if kind == "reconstruction" else code


def _segment_means(values: torch.Tensor, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Means of `values` [token, features] over the tokens of each row: [row, features]."""
    sums = values.new_zeros(len(counts), values.shape[1]).index_add_(
        0, rows.to(values.device), values
    )
    return sums / counts.to(values.device)[:, None]
