"""Reading and changing the MLP outputs of chosen layers: hooks that are always removed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp import models

#: An edit maps an MLP output [batch, token, d_model] to its replacement.
Edit = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def captured(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block, every forward pass leaves the MLP outputs [batch, token, d_model] in the dictionary."""
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        return lambda module, inputs, output: outputs.__setitem__(layer, output.detach())

    handles = [module.register_forward_hook(keep(layer)) for layer, module in models.mlps(model, layers).items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_final(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within the block, every forward pass leaves the final hidden state [batch, token, d_model] in the list."""
    states: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        states[:] = [output.detach()]

    handle = model.get_submodule(models.architecture(model).final_norm).register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


@contextmanager
def edited(model: PreTrainedModel, edits: Mapping[int, Edit]) -> Iterator[None]:
    """Within the block, the MLP output of every layer in `edits` is replaced by its edit's result."""
    handles = [
        module.register_forward_hook(lambda m, inputs, output, edit=edits[layer]: edit(output))
        for layer, module in models.mlps(model, edits).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def length_batches(lengths: Sequence[int], batch_size: int) -> list[np.ndarray]:
    """Indices in batches of like length, so that little is padded; every index occurs once."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.no_grad()
def mlp_outputs(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], layers: Sequence[int], pad: int, batch_size: int
) -> Iterator[tuple[np.ndarray, torch.Tensor, dict[int, torch.Tensor]]]:
    """One pass over `sequences`: yields (indices, attention mask [batch, token], {layer: MLP output}) per batch."""
    batches = length_batches([len(sequence) for sequence in sequences], batch_size)
    with captured(model, layers) as outputs:
        for index in tqdm(batches, desc="activations", disable=None):
            batch = models.pad_batch([sequences[i] for i in index], pad, model.device)
            model.base_model(**batch, use_cache=False)
            mask = batch["attention_mask"].bool()
            # OPT flattens batch and tokens in front of its MLP.
            yield index, mask, {layer: output.reshape(*mask.shape, -1) for layer, output in outputs.items()}


@torch.no_grad()
def text_losses(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad: int, batch_size: int, edits: Mapping[int, Edit]
) -> tuple[np.ndarray, np.ndarray]:
    """Summed next-token cross-entropy (nats) and number of predicted tokens of every sequence, under `edits`."""
    nats, counts = np.zeros(len(sequences)), np.zeros(len(sequences), dtype=np.int64)
    with edited(model, edits):
        for index in length_batches([len(sequence) for sequence in sequences], batch_size):
            batch = models.pad_batch([sequences[i] for i in index], pad, model.device)
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            mask = batch["attention_mask"][:, 1:]
            losses = F.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none")
            nats[index] = (losses.view(mask.shape) * mask).sum(1).double().cpu().numpy()
            counts[index] = mask.sum(1).cpu().numpy()
    return nats, counts


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of `texts`, each cut to `max_tokens`; empty texts are left out."""
    return [ids for ids in tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"] if ids]


def harvest(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    outputs: Mapping[int, np.ndarray],
    pad: int,
    batch_size: int,
    seed: int,
) -> None:
    """Fill `outputs` {layer: [token, d_model]} with the MLP outputs on all tokens of `sequences`, shuffled.

    The arrays may be files (:func:`~workflow_scripts.lfp.artefacts.tensor_file`): no more than a batch is held at once.
    Padding is left out (the authors trained on it: paper_vs_code 1.4). Tokens are shuffled once, with one
    order for all layers, so that training batches mix texts.
    """
    total = sum(len(sequence) for sequence in sequences)
    place = np.empty(total, dtype=np.int64)
    place[np.random.default_rng(seed).permutation(total)] = np.arange(total)
    done = 0
    for _, mask, batch in mlp_outputs(model, sequences, sorted(outputs), pad, batch_size):
        rows = place[done : done + int(mask.sum())]
        for layer, array in outputs.items():
            array[rows] = batch[layer][mask].float().cpu().numpy()
        done += len(rows)


def word_mask(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Indices of the tokens whose characters overlap [`start`, `end`): the pieces of one word."""
    return [i for i, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
