"""Harvest of activations: shuffled tokens of a corpus, as files that dictionaries learn from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.files.artefacts import read_json, tensor_file, write_json
from lfp.files.provenance import ArtefactError
from lfp.files.resume import Clock
from lfp.models import limits
from lfp.models.hooks import hook_place, site_activations, site_width
from lfp.reporting.progress import Progress
from lfp.sae.outliers import RECORD, described

log = logging.getLogger(__name__)

#: Tokens that are shuffled together while activations are harvested.
WINDOW_TOKENS = 65_536


_LARGEST = float(np.finfo(np.float16).max)


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
    site: str = "mlp",
    fronts: Sequence[int] | None = None,
) -> None:
    """Fill arrays with the activations of a site on all tokens of `sequences`, shuffled.

    Texts come in random order; their tokens are shuffled within windows, with one order for all
    layers, so that training batches mix texts and no more than a window is held. Padding is left
    out (the authors trained on it: paper_vs_code 1.4), and so is the front of a sequence
    (:func:`~lfp.sae.reading.left_out`). Values beyond the range of float16 are cut to it, and
    counted in the log.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    outputs
        Arrays [token, width] by layer, which may be files of float16
        (:func:`~lfp.files.artefacts.tensor_file`); they are written from front to back.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    seed, window_tokens
        Seed of the order of texts and tokens, and tokens that are shuffled together.
    progress_path
        A file with the digests of the windows that `outputs` hold; a killed harvest goes on
        behind those whose rows have their digest.
    site, fronts
        The part of the layers that is read, and the number of tokens in front of each sequence
        that are left out; None for 0.
    """
    rng, clock = np.random.default_rng(seed), Clock()
    filled, done, layers = _Filled(progress_path), 0, sorted(outputs)
    fronts = [0] * len(sequences) if fronts is None else fronts
    bar = Progress(total=harvested_tokens(sequences, fronts), desc="tokens")
    order = rng.permutation(len(sequences))
    for number, indices in enumerate(_windows(sequences, fronts, order, window_tokens)):
        window, left = [sequences[i] for i in indices], np.array([fronts[i] for i in indices])
        rows = harvested_tokens(window, left)
        place = rng.permutation(rows)
        if filled.holds(number, [outputs[n][done : done + rows] for n in layers]):
            done += rows
            bar.update(rows)
            continue
        held = {n: np.empty((rows, a.shape[1]), dtype=a.dtype) for n, a in outputs.items()}
        read = site_activations(model, window, layers, pad, batch_size, site=site)
        cut = _fill(held, place, read, left)
        for layer, array in held.items():
            outputs[layer][done : done + rows] = array
        done += rows
        bar.update(rows)
        filled.add([held[n] for n in layers], cut)
        if progress_path and clock.due():
            write_json(progress_path, {"windows": filled.windows}, {})
    bar.close()
    cut = sum(window["cut"] for window in filled.windows)
    log.info("%d tokens, %d layers, %d values cut to the range of float16", done, len(layers), cut)


class _Filled:
    """The windows that a harvest has filled: the digest of each, and how many values were cut.

    Those of an interrupted harvest are in the file `path`, if there is one.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.windows: list[dict[str, Any]] = []
        self.path = path
        if path and Path(path).exists():
            try:
                self.windows = read_json(path)["windows"]
            except (ArtefactError, KeyError):
                log.warning("%s: a damaged resume point; the work starts again", path)

    def holds(self, number: int, arrays: Sequence[np.ndarray]) -> bool:
        """Whether the window `number` is filled, and `arrays`, its rows by layer, are as then.

        Where they are not, it and all windows behind it are filled again.
        """
        if number >= len(self.windows):
            return False
        intact = _digest(arrays) == self.windows[number]["digest"]
        if not intact:
            log.warning("%s: damaged in window %d; it is read again", self.path, number)
            del self.windows[number:]
        return intact

    def add(self, arrays: Sequence[np.ndarray], cut: int) -> None:
        """Note that the next window is filled with `arrays`, its rows by layer."""
        self.windows.append({"digest": _digest(arrays) if self.path else "", "cut": cut})


def _digest(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over the rows of all layers."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()


def _fill(
    held: Mapping[int, np.ndarray],
    place: np.ndarray,
    batches: Iterable[tuple[np.ndarray, torch.Tensor, Mapping[int, torch.Tensor]]],
    fronts: np.ndarray,
) -> int:
    """Put the tokens of `batches` at their `place` in the arrays `held` [token, width] by layer.

    A batch has indices of texts, a mask, and activations by layer. As many tokens as `fronts` has
    for a text are left out. Returns the number of values that were cut.
    """
    filled = cut = 0
    for index, mask, batch in batches:
        mask = behind(mask, fronts[index])
        chosen = place[filled : filled + int(mask.sum())]
        for layer, array in held.items():
            values = batch[layer][mask]
            values, beyond = (
                _as_float16(values) if array.dtype == np.float16 else (values.float(), 0)
            )
            cut += beyond
            array[chosen] = values.cpu().numpy()
        filled += len(chosen)
    return cut


def _as_float16(values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """`values` in float16, cut to its range, and the number of those that were beyond it."""
    low = values.half()
    beyond = int(low.isinf().sum())
    return (values.float().clamp(-_LARGEST, _LARGEST).half() if beyond else low), beyond


def behind(mask: torch.Tensor, fronts: np.ndarray) -> torch.Tensor:
    """A mask [text, token] without as many tokens in front of every text as `fronts` says."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask & (places >= torch.as_tensor(fronts, device=mask.device)[:, None])


def _windows(
    sequences: Sequence[Sequence[int]], fronts: Sequence[int], order: np.ndarray, tokens: int
) -> Iterator[list[int]]:
    """Indices of `sequences` in `order`, in lists of at most `tokens` tokens, or of one sequence.

    A sequence of which nothing is left behind its front need not be read.
    """
    window: list[int] = []
    held = 0
    for i in order:
        if len(sequences[i]) <= fronts[i]:
            continue
        if window and held + len(sequences[i]) > tokens:
            yield window
            window, held = [], 0
        window.append(i)
        held += len(sequences[i])
    if window:
        yield window


def harvested_tokens(sequences: Sequence[Sequence[int]], fronts: Sequence[int]) -> int:
    """The number of tokens of `sequences` behind the front of each."""
    return sum(map(len, sequences)) - int(sum(fronts))


def tokens_digest(sequences: Sequence[Sequence[int]], fronts: Sequence[int], seed: int) -> str:
    """Digest of the tokens that a harvest reads, and of their order.

    Harvests of two models with the same digest have the same token in every row.
    """
    order = {"sequences": list(map(list, sequences)), "fronts": list(fronts), "seed": seed}
    text = json.dumps(order | {"window": WINDOW_TOKENS}, default=int)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def disk_bytes(tokens: int, layers: int, d_model: int, most_gb: float) -> int:
    """Bytes that :func:`harvest` writes in float16; ValueError where they exceed `most_gb` GB."""
    size = 2 * layers * d_model * tokens
    if size > most_gb * 1e9:
        raise ValueError(
            f"activations: {layers} layers of {tokens:,} tokens take"
            f" {size / 1e9:.3g} GB, more than activations.max_disk_gb ({most_gb:g}). Read fewer"
            " texts, set keep_activations: false so that only the chosen layers are harvested, or"
            " raise the limit"
        )
    return size


def layer_file(layer: int) -> str:
    """The name of the file of a layer's activations."""
    return f"layer{layer}.safetensors"


def output_files(layers: Sequence[int]) -> list[str]:
    """The names of the files of a harvest of `layers`."""
    return [*map(layer_file, layers), RECORD]


def harvest_folder(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    folder: Path,
    layers: Sequence[int],
    pad: int,
    batch_size: int,
    seed: int,
    stamp: Mapping[str, Any],
    site: str = "mlp",
    fronts: Sequence[int] | None = None,
    outlier_norm: float | None = None,
    counts: Mapping[str, int] | None = None,
) -> int:
    """:func:`harvest` into a file for each layer, ``layer{n}.safetensors``, with the hook's name.

    Beside them stands the record of outliers (:mod:`lfp.sae.outliers`), with the digest of the
    tokens that were read. Returns the number of outliers.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    folder
        Folder of the files; a harvest that was killed goes on in it.
    layers, site
        Layers that are read, and the part of them; :func:`layer_file` names their files.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    seed
        Seed of the order of texts and tokens.
    stamp
        Settings and digest of the code, for every file.
    fronts, counts
        Number of tokens in front of each sequence that are left out (None for 0), and their counts
        by reason, for the record.
    outlier_norm
        Multiple of the median norm from which on an activation is an outlier.
    """
    limits.check_texts(model.config, sequences)
    fronts = [0] * len(sequences) if fronts is None else fronts
    shape = (harvested_tokens(sequences, fronts), site_width(model, site))
    progress = folder / "progress.json"
    with ExitStack() as stack:
        outputs = {}
        for layer in layers:
            origin = hook_place(model, layer, site)
            path = folder / layer_file(layer)
            file = tensor_file(path, "activations", shape, stamp, origin)
            outputs[layer] = stack.enter_context(file)
        harvest(
            model, sequences, outputs, pad, batch_size, seed, progress_path=progress, site=site,
            fronts=fronts,
        )  # fmt: skip
        record = {n: described(array, outlier_norm, counts or {}) for n, array in outputs.items()}
    tokens = tokens_digest(sequences, fronts, seed)
    write_json(folder / RECORD, {"layers": record, "tokens": tokens}, stamp)
    return sum(entry["outliers"] for entry in record.values())
