"""Features of contrast elements, which the probes read (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models.architectures import width
from lfp.models.hooks import continuations, site_width
from lfp.models.losses import log_probabilities
from lfp.models.tokens import added_tokens, tokenize, word_mask
from lfp.probing.contrasts import ELEMENTS
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import FEATURES

#: Kinds of features that are read off a model: the autoencoder's code, its output, the activations
#: of its site themselves, the code of an untrained autoencoder on the same activations, and the
#: static input embedding. The kind `pca` is computed from `raw` when a probe is fitted.
KINDS = tuple(kind for kind in FEATURES if kind != "pca")


def encode_elements(
    tokenizer: PreTrainedTokenizerBase,
    triples: pd.DataFrame,
    elements: Sequence[str],
    max_tokens: int,
) -> tuple[list[list[list[int]]], list[list[list[int]]]]:
    """Token ids of prompt + element, and the indices of the element's own tokens.

    Both are by element and triple. Text after the element is left out: a causal model's activations
    cannot depend on it. Where a sequence of a triple is longer than `max_tokens`, all of them are
    cut from the left alike, behind what the tokenizer adds in front, so that they go on sharing
    their prompt. The prompt alone is cut so, up to its last token; where that is not enough, the
    end of the element is cut.

    Raises ValueError where an element has no token of its own.
    """
    prompts = list(triples["prompt"])
    sequences, targets = [], []
    for element in elements:
        texts = [prompt + value for prompt, value in zip(prompts, triples[element], strict=True)]
        encoded = tokenize(tokenizer, texts, prompts=True)
        sequences.append(encoded.ids)
        spans = zip(encoded.spans, prompts, texts, strict=True)
        targets.append(
            [word_mask(offsets, len(prompt), len(text)) for offsets, prompt, text in spans]
        )
    kept = len(added_tokens(tokenizer)[0])
    for i in range(len(prompts)):
        for element, places in zip(elements, targets, strict=True):
            if not places[i]:
                raise ValueError(
                    f"the tokenizer gives no token to the {element} {triples[element].iloc[i]!r}"
                    f" behind the prompt {prompts[i][-40:]!r}: take it out of the corpus"
                )
        excess = max(len(ids[i]) for ids in sequences) - max_tokens
        ahead = min(places[i][0] for places in targets) - max(1, kept)
        skip = max(0, min(excess, ahead))
        for ids, places in zip(sequences, targets, strict=True):
            ids[i] = (ids[i][:kept] + ids[i][kept + skip :])[:max_tokens]
            places[i] = [index - skip for index in places[i] if index - skip < max_tokens]
    return sequences, targets


def shared_tokens(sequences: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> int:
    """Number of first tokens that `sequences` share.

    They lie ahead of every token of `targets` and of the one before it.
    """
    most = min(max(0, min(indices) - 1) for indices in targets)
    differ = (i for i in range(most) if len({ids[i] for ids in sequences}) > 1)
    return next(differ, most)


class Elements:
    """The texts of contrast triples as tokens.

    Parameters
    ----------
    tokenizer
        The tokenizer of the subject.
    triples
        A ``prompt`` and a column for each of `elements`.
    elements
        Columns that are read.
    max_tokens
        Tokens of a text; longer ones are cut (:func:`encode_elements`).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        triples: pd.DataFrame,
        elements: Sequence[str],
        max_tokens: int,
    ) -> None:
        self.elements = elements
        self.sequences, self.targets = encode_elements(tokenizer, triples, elements, max_tokens)
        self.shared = [
            shared_tokens([s[i] for s in self.sequences], [t[i] for t in self.targets])
            for i in range(len(triples))
        ]

    def targets_of(
        self, rows: Sequence[int], element: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens of an element in `rows`.

        They are given as the place of the row, the position behind the shared tokens, and the id,
        each [token].
        """
        pairs = [(place, t) for place, i in enumerate(rows) for t in self.targets[element][i]]
        tokens = [t - self.shared[rows[place]] for place, t in pairs]
        ids = [self.sequences[element][rows[place]][t] for place, t in pairs]
        places = torch.tensor([place for place, _ in pairs])
        return places, torch.tensor(tokens), torch.tensor(ids, device=device)

    def lengths(self, triples: pd.DataFrame) -> dict[str, np.ndarray]:
        """``length.{element}`` [triple, 2] and ``first_token.{element}`` [triple, 1]."""
        result = {}
        for element, sequences, targets in zip(
            self.elements, self.sequences, self.targets, strict=True
        ):
            sizes = [(len(t), len(text)) for t, text in zip(targets, triples[element], strict=True)]
            result[f"length.{element}"] = np.array(sizes, dtype=np.float32)
            first = [[ids[t[0]]] for ids, t in zip(sequences, targets, strict=True)]
            result[f"first_token.{element}"] = np.array(first, dtype=np.int64)
        return result


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

    The pieces of a target word (paper section 3.3) or the tokens of an answer are averaged, without
    padding. The model reads the tokens that a triple's elements share once.

    Parameters
    ----------
    model, tokenizer
        The subject and its tokenizer.
    autoencoders
        Autoencoders by layer, of the site that is read.
    triples, elements
        Contrast triples with a ``prompt``, and their columns that are read.
    kinds
        Names of :data:`KINDS`.
    max_tokens
        Tokens of a text; longer ones are cut (:func:`encode_elements`).
    batch_size
        Sequences in a batch, one for each element of a triple.
    state_path
        A resume point, kept once a minute; an interrupted call goes on behind it.

    Returns
    -------
    dict
        ``{kind}.{element}`` [triple, features] for every kind and element. Beside them stand, for
        controls that no autoencoder takes part in, ``log_probability.{element}`` [triple, 1], the
        summed log-probability (nats) of the element's tokens after the prompt; ``length.{element}``
        [triple, 2], its tokens and characters; ``first_token.{element}`` [triple, 1].
    """
    if triples.empty:
        return _of_no_triples(model, autoencoders, kinds, elements)
    texts = Elements(tokenizer, triples, elements, max_tokens)
    tensors, counters = load_tensors(state_path) or ({}, {"batches": 0})
    result = {name: value.numpy() for name, value in tensors.items()}
    done, clock, pad = counters["batches"], Clock(), tokenizer.pad_token_id
    rows_at_once = max(1, batch_size // len(elements))
    random = _untrained(autoencoders) if "random_code" in kinds else {}
    for rows, outputs, final in continuations(
        model, texts.sequences, texts.shared, sorted(autoencoders), pad, rows_at_once, first=done,
        site=site_of(autoencoders),
    ):  # fmt: skip
        for e, element in enumerate(elements):
            place, token, ids = texts.targets_of(rows, e, model.device)
            inputs = {n: outputs[n][e][place, token].float() for n in sorted(autoencoders)}
            read = {k: _features(model, autoencoders, random, inputs, ids, k) for k in kinds}
            means = {k: _segment_means(values, place, len(rows)) for k, values in read.items()}
            likely = _log_probabilities(model, final[e], ids, place, token, len(rows))
            _put(means | {"log_probability": likely}, rows, element, len(triples), result)
        done += 1
        if state_path and clock.due():
            kept = {name: torch.from_numpy(value) for name, value in result.items()}
            save_tensors(state_path, kept, {"batches": done})
    return result | texts.lengths(triples)


def _untrained(autoencoders: Mapping[int, SparseAutoencoder]) -> dict[int, SparseAutoencoder]:
    """Untrained autoencoders by layer, of the same activations and thus of the same outliers."""
    result = {}
    for layer, sae in autoencoders.items():
        result[layer] = sae.untrained(layer)
        result[layer].largest_norm = sae.largest_norm
    return result


def _put(
    means: Mapping[str, np.ndarray],
    rows: Sequence[int],
    element: str,
    n: int,
    result: dict[str, np.ndarray],
) -> None:
    """Put features by kind [row, features] into the `rows` of arrays of `n` rows in `result`."""
    for kind, values in means.items():
        name = f"{kind}.{element}"
        if name not in result:
            result[name] = np.zeros((n, values.shape[1]), values.dtype)
        result[name][rows] = values


def _of_no_triples(
    model: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    kinds: Sequence[str],
    elements: Sequence[str],
) -> dict[str, np.ndarray]:
    """The result of :func:`element_features` without a triple: arrays of no rows."""
    codes = sum(sae.d_sae for sae in autoencoders.values())
    read = site_width(model, site_of(autoencoders)) * len(autoencoders)
    columns = {"latents": codes, "random_code": codes, "embedding": width(model)}
    sizes = {kind: columns.get(kind, read) for kind in kinds}
    sizes |= {"log_probability": 1, "length": 2}
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
    """Summed log-probabilities [row, 1] of the tokens `ids` at (`rows`, `tokens`).

    A text's first token counts 0.
    """
    known = tokens > 0  # the token before is always among those read, unless there is none
    before = final[rows[known], tokens[known] - 1]
    values = log_probabilities(model, before, ids[known.to(ids.device)])
    return torch.zeros(n).index_add_(0, rows[known], values.cpu()).numpy()[:, None]


def _features(
    model: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    random: Mapping[int, SparseAutoencoder],
    inputs: Mapping[int, torch.Tensor],
    ids: torch.Tensor,
    kind: str,
) -> torch.Tensor:
    """One kind of features [token, feature] of `inputs` by layer [token, width], side by side."""
    if kind == "embedding":
        return model.get_input_embeddings()(ids).float()
    if kind == "raw":
        return torch.cat(list(inputs.values()), 1)
    saes = random if kind == "random_code" else autoencoders
    codes = {layer: saes[layer].latents(x) for layer, x in inputs.items()}
    if kind == "reconstruction":
        return torch.cat([saes[layer].decode(code) for layer, code in codes.items()], 1)
    return torch.cat(list(codes.values()), 1)


def _segment_means(values: torch.Tensor, rows: torch.Tensor, n: int) -> np.ndarray:
    """Means of `values` [token, features] over the tokens of each of `n` rows: [row, features]."""
    sums = values.new_zeros(n, values.shape[1]).index_add_(0, rows.to(values.device), values)
    counts = torch.bincount(rows, minlength=n).to(values.device)
    return (sums / counts[:, None]).cpu().numpy()
