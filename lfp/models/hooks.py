"""Reading and changing the MLP outputs of chosen layers: hooks that are always removed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from lfp.models.architectures import architecture, mlps
from lfp.models.tokens import pad_batch, position_ids
from lfp.reporting.progress import Progress

#: An edit maps an MLP output [batch, token, d_model] to its replacement.
Edit = Callable[[torch.Tensor], torch.Tensor]


class _EnoughError(Exception):
    """Raised inside a forward pass once the last wanted MLP output is there."""


@contextmanager
def captured(
    model: PreTrainedModel, layers: Sequence[int], stop: bool = False
) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block, every forward pass leaves the MLP outputs [batch, token, d_model] in the
    dictionary.

    With `stop` a pass ends behind the last of `layers`, by an exception that :func:`mlp_outputs`
    catches.
    """
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            outputs[layer] = output.detach()
            if stop and layer == max(layers):
                raise _EnoughError

        return hook

    handles = [
        module.register_forward_hook(keep(layer)) for layer, module in mlps(model, layers).items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_final(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within the block, every forward pass leaves the final hidden state [batch, token, d_model] in
    the list.
    """
    states: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        states[:] = [output.detach()]

    handle = model.get_submodule(architecture(model).final_norm).register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


@contextmanager
def edited(model: PreTrainedModel, edits: Mapping[int, Edit]) -> Iterator[None]:
    """Within the block, the MLP output of every layer in `edits` is replaced by its
    edit's result.
    """
    handles = [
        module.register_forward_hook(lambda m, inputs, output, edit=edits[layer]: edit(output))
        for layer, module in mlps(model, edits).items()
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
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int],
    pad: int,
    batch_size: int,
    stop: bool = True,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, torch.Tensor, dict[int, torch.Tensor]]]:
    """One pass over `sequences`: yields (indices, attention mask [batch, token], {layer: MLP
    output}) per batch.

    A pass begins with batch `first` and ends behind the last of `layers` unless `stop` is false.
    Sequences are padded on the right, where a causal model's real tokens cannot see, so it gets no
    mask.
    """
    batches = length_batches([len(sequence) for sequence in sequences], batch_size)
    with captured(model, layers, stop) as outputs:
        for index in batches[first:]:
            batch = pad_batch([sequences[i] for i in index], pad, model.device)
            with suppress(_EnoughError):
                model.base_model(input_ids=batch["input_ids"], use_cache=False)
            mask = batch["attention_mask"].bool()
            # OPT flattens batch and tokens in front of its MLP.
            yield (
                index,
                mask,
                {layer: output.reshape(*mask.shape, -1) for layer, output in outputs.items()},
            )


@torch.no_grad()
def continuations(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[Sequence[int]]],
    shared: Sequence[int],
    layers: Sequence[int],
    pad: int,
    batch_size: int,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, dict[int, list[torch.Tensor]], list[torch.Tensor]]]:
    """What the model makes of several continuations of each row's prefix, which it reads once.

    `sequences` [continuation][row] are token ids whose first `shared` [row] are equal. Yields, per
    batch of `batch_size` rows, their indices, the MLP outputs of `layers`, and the final hidden
    states, both as a list over continuations of [row, token, d_model] whose tokens begin behind the
    shared ones. The pass begins with batch `first`.
    """
    kinds = len(sequences)
    rests = [[ids[n:] for ids, n in zip(row, shared, strict=True)] for row in sequences]
    # Rows with a prefix of like length, and within those with continuations of like length, go
    # together.
    order = np.lexsort(([max(len(rest[i]) for rest in rests) for i in range(len(shared))], shared))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for index in Progress(batches[first:], desc="activations", initial=first, total=len(batches)):
        cache, before = _read_prefixes(
            model, [sequences[0][i][: shared[i]] for i in index], pad, kinds
        )
        batch = pad_batch([rest[i] for i in index for rest in rests], pad, model.device)
        mask = batch["attention_mask"]
        positions = torch.tensor([shared[i] for i in index for _ in rests], device=model.device)[
            :, None
        ]
        with captured(model, layers) as outputs, captured_final(model) as final:
            model.base_model(
                input_ids=batch["input_ids"], attention_mask=torch.cat([before, mask], 1),
                past_key_values=cache,
                position_ids=positions + torch.arange(mask.shape[1], device=model.device),
                use_cache=cache is not None,
            )  # fmt: skip
        by_row = {
            layer: output.reshape(len(index), kinds, mask.shape[1], -1)
            for layer, output in outputs.items()
        }
        states = final[0].reshape(len(index), kinds, mask.shape[1], -1)
        yield (
            index,
            {n: list(output.unbind(1)) for n, output in by_row.items()},
            list(states.unbind(1)),
        )


def _read_prefixes(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad: int, times: int
) -> tuple[object | None, torch.Tensor]:
    """The cache of left-padded `prefixes` and their mask [row, token], every row `times` times
    over.
    """
    if not any(map(len, prefixes)):
        return None, torch.zeros(times * len(prefixes), 0, dtype=torch.long, device=model.device)
    batch = pad_batch(prefixes, pad, model.device, left=True)
    positions = position_ids(batch["attention_mask"])
    cache = model.base_model(**batch, position_ids=positions, use_cache=True).past_key_values
    cache.batch_repeat_interleave(times)
    return cache, batch["attention_mask"].repeat_interleave(times, 0)


@torch.no_grad()
def text_losses(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    edits: Mapping[int, Edit],
) -> tuple[np.ndarray, np.ndarray]:
    """Summed next-token cross-entropy (nats) and number of predicted tokens of every sequence,
    under `edits`.
    """
    nats, counts = np.zeros(len(sequences)), np.zeros(len(sequences), dtype=np.int64)
    with edited(model, edits):
        for index in length_batches([len(sequence) for sequence in sequences], batch_size):
            batch = pad_batch([sequences[i] for i in index], pad, model.device)
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            mask = batch["attention_mask"][:, 1:]
            losses = F.cross_entropy(
                logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none"
            )
            nats[index] = (losses.view(mask.shape) * mask).sum(1).double().cpu().numpy()
            counts[index] = mask.sum(1).cpu().numpy()
    return nats, counts
