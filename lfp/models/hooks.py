"""Reading and changing the activations of a site.

Hooks are always removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lfp.models import limits
from lfp.models.architectures import architecture, blocks
from lfp.models.tokens import length_batches, pad_batch, position_ids
from lfp.reporting.progress import Progress
from lfp.sites import SITES

#: An edit maps the activations of a site [batch, token, width] to their replacement.
Edit = Callable[[torch.Tensor], torch.Tensor]


class _EnoughError(Exception):
    """Raised inside a forward pass once the last wanted activations are there."""


def site_modules(
    model: PreTrainedModel, layers: Iterable[int], site: str = "mlp"
) -> dict[int, nn.Module]:
    """The module of a `site` (:data:`lfp.sites.SITES`) in each of `layers`."""
    stack = blocks(model)
    name = getattr(architecture(model), SITES[site].module)
    return {layer: stack[layer].get_submodule(name) for layer in layers}


def hook_name(model: PreTrainedModel, layer: int, site: str = "mlp") -> str:
    """Dotted path of the module that a layer's `site` is a side of."""
    family = architecture(model)
    return f"{family.blocks}.{layer}.{getattr(family, SITES[site].module)}".rstrip(".")


def site_width(model: PreTrainedModel, site: str = "mlp") -> int:
    """Width of a `site`: d_model, or that of all heads together."""
    config = model.config.get_text_config()
    if (SITES[site].module, SITES[site].side) != ("attention_output", "input"):
        return config.hidden_size
    heads = config.num_attention_heads
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def hook_place(model: PreTrainedModel, layer: int, site: str = "mlp") -> dict[str, str]:
    """The place that a layer's `site` is read at, as it is written beside what was read.

    ``hook_name`` is the module's path (:func:`hook_name`) and ``hook_side`` the side of it.
    """
    return {"hook_name": hook_name(model, layer, site), "hook_side": SITES[site].side}


def _hook(module: nn.Module, site: str, change: Callable[[torch.Tensor], torch.Tensor | None]):
    """Register `change` on the activations of a site; what it returns, if anything, replaces them.

    A block gives its output alone or as the first of a tuple, and so do hooks receive it.
    """

    def replaced(values: Any) -> Any:
        several = isinstance(values, tuple)
        result = change(values[0] if several else values)
        return (result, *values[1:]) if several and result is not None else result

    if SITES[site].side == "input":
        return module.register_forward_pre_hook(lambda m, inputs: replaced(inputs))
    return module.register_forward_hook(lambda m, inputs, output: replaced(output))


@contextmanager
def captured(
    model: PreTrainedModel, layers: Sequence[int], stop: bool = False, site: str = "mlp"
) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block, every forward pass leaves the activations of a site in the dictionary.

    They are [batch, token, width] by layer. With `stop` a pass ends behind the last of `layers`, by
    an exception that :func:`site_activations` catches.
    """
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Callable[[torch.Tensor], None]:
        def change(values: torch.Tensor) -> None:
            outputs[layer] = values.detach()
            if stop and layer == max(layers):
                raise _EnoughError

        return change

    modules = site_modules(model, layers, site)
    handles = [_hook(module, site, keep(layer)) for layer, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def captured_final(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within the block, every forward pass leaves the final hidden state in the list.

    It is [batch, token, d_model].
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
def captured_steps(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within the block, every forward pass adds its last token's final hidden state to the list.

    It is [batch, d_model]: while a model writes, that which the next token is drawn from.
    """
    states: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        states.append(output[:, -1].detach())

    handle = model.get_submodule(architecture(model).final_norm).register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


@contextmanager
def edited(model: PreTrainedModel, edits: Mapping[int, Edit], site: str = "mlp") -> Iterator[None]:
    """Within the block, edits by layer replace the activations of a site."""
    modules = site_modules(model, edits, site)
    handles = [_hook(module, site, edits[layer]) for layer, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def site_activations(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int],
    pad: int,
    batch_size: int,
    stop: bool = True,
    first: int = 0,
    site: str = "mlp",
) -> Iterator[tuple[np.ndarray, torch.Tensor, dict[int, torch.Tensor]]]:
    """Read the activations of a site on all `sequences`, in one pass.

    Sequences are padded on the right, where a causal model's real tokens cannot see, so the model
    gets no mask.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    layers, site
        Layers whose activations are read, and the part of them (:data:`lfp.sites.SITES`).
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    stop
        Whether a pass ends behind the last of `layers`.
    first
        The batch that the pass begins with.

    Yields
    ------
    tuple
        Indices of the batch's sequences, attention mask [batch, token], and the activations
        [batch, token, width] by layer.
    """
    limits.check_texts(model.config, sequences)
    batches = length_batches([len(sequence) for sequence in sequences], batch_size)
    with captured(model, layers, stop, site) as outputs:
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
    site: str = "mlp",
) -> Iterator[tuple[np.ndarray, dict[int, list[torch.Tensor]], list[torch.Tensor]]]:
    """Read several continuations of each row's prefix; the prefix is read once.

    Parameters
    ----------
    model
        A causal language model.
    sequences
        Token ids [continuation][row].
    shared
        Number of first tokens [row] that the row's continuations share.
    layers, site
        Layers whose activations are read, and the part of them.
    pad, batch_size
        The padding token's id and the number of rows in a batch.
    first
        The batch that the pass begins with.

    Yields
    ------
    tuple
        Indices of the batch's rows, the activations by layer and the final hidden states; both are
        lists over continuations of [row, token, width] whose tokens begin behind the shared ones.
    """
    kinds = len(sequences)
    rests = [[ids[n:] for ids, n in zip(row, shared, strict=True)] for row in sequences]
    longest = [max(len(rest[i]) for rest in rests) for i in range(len(shared))]
    batches = _continued_batches(shared, longest, batch_size, model.config)
    for index in Progress(batches[first:], desc="activations", initial=first, total=len(batches)):
        cache, before = _read_prefixes(
            model, [sequences[0][i][: shared[i]] for i in index], pad, kinds
        )
        batch = pad_batch([rest[i] for i in index for rest in rests], pad, model.device)
        mask = batch["attention_mask"]
        positions = torch.tensor([shared[i] for i in index for _ in rests], device=model.device)
        with captured(model, layers, site=site) as outputs, captured_final(model) as final:
            model.base_model(
                input_ids=batch["input_ids"],
                attention_mask=torch.cat([before, mask], 1),
                past_key_values=cache,
                position_ids=positions[:, None] + torch.arange(mask.shape[1], device=model.device),
                use_cache=cache is not None,
            )
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


def _continued_batches(
    shared: Sequence[int], longest: Sequence[int], batch_size: int, config: PreTrainedConfig
) -> list[np.ndarray]:
    """Rows in batches with prefixes of like length, and among those with continuations of like one.

    The longest prefix and the longest continuation of a batch have no more tokens together than a
    model of `config` has positions, for their padding takes some, too.
    """
    batches: list[list[int]] = []
    most = limits.most_positions(config)
    for row in np.lexsort((longest, shared)):
        batch = [*(batches[-1] if batches else ()), row]
        limits.check_length(config, shared[row] + longest[row])
        padded = max(shared[i] for i in batch) + max(longest[i] for i in batch)
        full = len(batch) > batch_size or (most is not None and padded > most)
        if full or not batches:
            batches.append([row])
        else:
            batches[-1] = batch
    return [np.array(batch) for batch in batches]


def _read_prefixes(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad: int, times: int
) -> tuple[object | None, torch.Tensor]:
    """The cache of left-padded `prefixes` and their mask [row, token].

    Every row stands `times` times in both.
    """
    if not any(map(len, prefixes)):
        return None, torch.zeros(times * len(prefixes), 0, dtype=torch.long, device=model.device)
    batch = pad_batch(prefixes, pad, model.device, left=True)
    positions = position_ids(batch["attention_mask"])
    cache = model.base_model(**batch, position_ids=positions, use_cache=True).past_key_values
    cache.batch_repeat_interleave(times)
    return cache, batch["attention_mask"].repeat_interleave(times, 0)
