"""Reading and changing the MLP outputs of chosen layers: hooks that are always removed again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp import models
from workflow_scripts.lfp.artefacts import read_json, write_json
from workflow_scripts.lfp.resume import Clock
from workflow_scripts.lfp.terminal import Progress

log = logging.getLogger(__name__)

#: Tokens that are shuffled together while activations are harvested.
WINDOW_TOKENS = 65_536
_LARGEST = float(np.finfo(np.float16).max)

#: An edit maps an MLP output [batch, token, d_model] to its replacement.
Edit = Callable[[torch.Tensor], torch.Tensor]


class _EnoughError(Exception):
    """Raised inside a forward pass once the last wanted MLP output is there."""


@contextmanager
def captured(model: PreTrainedModel, layers: Sequence[int], stop: bool = False) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block, every forward pass leaves the MLP outputs [batch, token, d_model] in the dictionary.

    With `stop` a pass ends behind the last of `layers`, by an exception that :func:`mlp_outputs` catches.
    """
    outputs: dict[int, torch.Tensor] = {}

    def keep(layer: int):
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            outputs[layer] = output.detach()
            if stop and layer == max(layers):
                raise _EnoughError

        return hook

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
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int],
    pad: int,
    batch_size: int,
    stop: bool = True,
    first: int = 0,
) -> Iterator[tuple[np.ndarray, torch.Tensor, dict[int, torch.Tensor]]]:
    """One pass over `sequences`: yields (indices, attention mask [batch, token], {layer: MLP output}) per batch.

    A pass begins with batch `first` and ends behind the last of `layers` unless `stop` is false. Sequences are padded
    on the right, where a causal model's real tokens cannot see, so it gets no mask.
    """
    batches = length_batches([len(sequence) for sequence in sequences], batch_size)
    with captured(model, layers, stop) as outputs:
        for index in batches[first:]:
            batch = models.pad_batch([sequences[i] for i in index], pad, model.device)
            with suppress(_EnoughError):
                model.base_model(input_ids=batch["input_ids"], use_cache=False)
            mask = batch["attention_mask"].bool()
            # OPT flattens batch and tokens in front of its MLP.
            yield index, mask, {layer: output.reshape(*mask.shape, -1) for layer, output in outputs.items()}


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

    `sequences` [continuation][row] are token ids whose first `shared` [row] are equal. Yields, per batch of
    `batch_size` rows, their indices, the MLP outputs of `layers`, and the final hidden states, both as a list over
    continuations of [row, token, d_model] whose tokens begin behind the shared ones. The pass begins with batch
    `first`.
    """
    kinds = len(sequences)
    rests = [[ids[n:] for ids, n in zip(row, shared, strict=True)] for row in sequences]
    # Rows with a prefix of like length, and within those with continuations of like length, go together.
    order = np.lexsort(([max(len(rest[i]) for rest in rests) for i in range(len(shared))], shared))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for index in Progress(batches[first:], desc="activations", initial=first, total=len(batches)):
        cache, before = _read_prefixes(model, [sequences[0][i][: shared[i]] for i in index], pad, kinds)
        batch = models.pad_batch([rest[i] for i in index for rest in rests], pad, model.device)
        mask = batch["attention_mask"]
        positions = torch.tensor([shared[i] for i in index for _ in rests], device=model.device)[:, None]
        with captured(model, layers) as outputs, captured_final(model) as final:
            model.base_model(
                input_ids=batch["input_ids"], attention_mask=torch.cat([before, mask], 1), past_key_values=cache,
                position_ids=positions + torch.arange(mask.shape[1], device=model.device), use_cache=cache is not None,
            )  # fmt: skip
        by_row = {layer: output.reshape(len(index), kinds, mask.shape[1], -1) for layer, output in outputs.items()}
        states = final[0].reshape(len(index), kinds, mask.shape[1], -1)
        yield index, {n: list(output.unbind(1)) for n, output in by_row.items()}, list(states.unbind(1))


def _read_prefixes(
    model: PreTrainedModel, prefixes: Sequence[Sequence[int]], pad: int, times: int
) -> tuple[object | None, torch.Tensor]:
    """The cache of left-padded `prefixes` and their mask [row, token], every row `times` times over."""
    if not any(map(len, prefixes)):
        return None, torch.zeros(times * len(prefixes), 0, dtype=torch.long, device=model.device)
    batch = models.pad_batch(prefixes, pad, model.device, left=True)
    positions = models.position_ids(batch["attention_mask"])
    cache = model.base_model(**batch, position_ids=positions, use_cache=True).past_key_values
    cache.batch_repeat_interleave(times)
    return cache, batch["attention_mask"].repeat_interleave(times, 0)


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
    encoded = models.tokenize(tokenizer, texts, truncation=True, max_length=max_tokens)
    return [ids for ids in encoded["input_ids"] if ids]


@torch.inference_mode()
def harvest(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    outputs: Mapping[int, np.ndarray],
    pad: int,
    batch_size: int,
    seed: int,
    window_tokens: int = WINDOW_TOKENS,
    progress_path: str | Path | None = None,
) -> None:
    """Fill `outputs` {layer: [token, d_model]} with the MLP outputs on all tokens of `sequences`, shuffled.

    The arrays may be files of float16 (:func:`~workflow_scripts.lfp.artefacts.tensor_file`) and are written from front
    to back. Texts come in random order; their tokens are shuffled within windows of `window_tokens`, with one order for
    all layers, so that training batches mix texts and no more than a window is held. Padding is left out (the authors
    trained on it: paper_vs_code 1.4). Values beyond the range of float16 are cut to it, and counted in the log.
    With `progress_path` a file says how much of `outputs` is filled, and a killed harvest goes on behind that.
    """
    rng, clock = np.random.default_rng(seed), Clock()
    before = {"done": 0, "cut": 0}
    if progress_path and Path(progress_path).exists():
        before = read_json(progress_path)
        log.info("resuming behind %d tokens", before["done"])
    done, cut, layers = 0, before["cut"], sorted(outputs)
    bar = Progress(total=sum(map(len, sequences)), initial=before["done"], desc="tokens")
    for window in _windows(sequences, rng.permutation(len(sequences)), window_tokens):
        rows = sum(len(sequence) for sequence in window)
        place = rng.permutation(rows)
        if done < before["done"]:
            done += rows
            continue
        held = {n: np.empty((rows, array.shape[1]), dtype=array.dtype) for n, array in outputs.items()}
        filled = 0
        for _, mask, batch in mlp_outputs(model, window, layers, pad, batch_size):
            chosen = place[filled : filled + int(mask.sum())]
            for layer, array in held.items():
                values = batch[layer][mask]
                values, beyond = _as_float16(values) if array.dtype == np.float16 else (values.float(), 0)
                cut += beyond
                array[chosen] = values.cpu().numpy()
            filled += len(chosen)
        for layer, array in held.items():
            outputs[layer][done : done + rows] = array
        done += rows
        bar.update(rows)
        if progress_path and clock.due():
            write_json(progress_path, {"done": done, "cut": cut}, {})
    bar.close()
    log.info("%d tokens of %d layers, %d values cut to the range of float16", done, len(layers), cut)


def _as_float16(values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """`values` in float16, cut to its range, and how many of them were beyond it."""
    low = values.half()
    beyond = int(low.isinf().sum())
    return (values.float().clamp(-_LARGEST, _LARGEST).half() if beyond else low), beyond


def _windows(sequences: Sequence[Sequence[int]], order: np.ndarray, tokens: int) -> Iterator[list[Sequence[int]]]:
    """`sequences` in `order`, in lists of at most `tokens` tokens (or of one sequence)."""
    window: list[Sequence[int]] = []
    held = 0
    for i in order:
        if window and held + len(sequences[i]) > tokens:
            yield window
            window, held = [], 0
        window.append(sequences[i])
        held += len(sequences[i])
    if window:
        yield window


def disk_bytes(sequences: Sequence[Sequence[int]], layers: int, d_model: int, most_gb: float) -> int:
    """Bytes that :func:`harvest` writes in float16; ValueError where they are more than `most_gb` gigabytes."""
    size = 2 * layers * d_model * sum(len(sequence) for sequence in sequences)
    if size > most_gb * 1e9:
        raise ValueError(
            f"activations: {layers} layers of {size // (2 * layers * d_model):,} tokens take {size / 1e9:.3g} GB, more"
            f" than activations.max_disk_gb ({most_gb:g}). Read fewer texts, set keep_activations: false so that only"
            " the chosen layers are harvested, or raise the limit"
        )
    return size


def word_mask(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Indices of the tokens whose characters overlap [`start`, `end`): the pieces of one word."""
    return [i for i, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
