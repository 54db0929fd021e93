"""Tokens that a latent's direction promotes and suppresses, from a policy's files alone.

No library of models is loaded: the final norm, the unembedding and the vocabulary are read from the
checkpoint, so that a job takes a second instead of five.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lfp.files.artefacts import readable
from lfp.files.checkpoints import INDEX, WEIGHTS
from lfp.models.architectures import of_family

#: Rows of the unembedding that are multiplied at once.
ROWS = 8192
#: Last part of the names of the tensors of an output head, and of the input embedding, which is the
#: output head of models that tie the two.
HEAD = ("lm_head", "embed_out")
EMBEDDING = ("embed_in", "wte", "embed_tokens")
#: NumPy's name of each type of tensors; NumPy has no bfloat16, which is the upper half of a
#: float32.
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
#: The beginning of a word in vocabularies of SentencePiece.
WORD_BEGINNING = "\u2581"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a safetensors file, whose rows are read when they are asked for."""

    values: np.ndarray
    bfloat16: bool = False

    def rows(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """The rows from `start` to `end` in float32."""
        part = self.values[start:end]
        if self.bfloat16:
            return (part.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(part, dtype=np.float32)


@dataclass(frozen=True)
class OutputHead:
    """What turns a residual stream into logits: the final norm and the unembedding.

    ``scale`` [d_model] is the norm's weight, ``centred`` says that the norm takes the mean over
    dimensions away (LayerNorm), ``unembedding`` has a row of d_model numbers for every token. Its
    biases are left out, for they are the same whatever a latent does.
    """

    scale: np.ndarray
    centred: bool
    unembedding: Tensor

    def normed(self, directions: np.ndarray) -> np.ndarray:
        """`directions` [latent, d_model] behind the final norm, as if nothing stood beside them.

        The norm's own small constant under the root is left out.
        """
        if self.centred:
            directions = directions - directions.mean(1, keepdims=True)
        size = np.sqrt((directions**2).mean(1, keepdims=True))
        return directions / np.maximum(size, 1e-12) * self.scale


@dataclass(frozen=True)
class Promoted:
    """The tokens that a direction promotes and suppresses most, each with its logit.

    Logits are differences from their mean over the vocabulary, for the softmax sees no other.
    """

    promoted: list[tuple[str, float]] = field(default_factory=list)
    suppressed: list[tuple[str, float]] = field(default_factory=list)


def output_head(policy: str | Path) -> OutputHead:
    """The final norm and the unembedding of the checkpoint in the folder `policy`.

    ValueError where its family is not supported, or where it has no tensor of such a name.
    """
    config = _config(policy)
    family, places = of_family(config["model_type"]), _places(Path(policy))
    norm = _named(places, (family.final_norm.rpartition(".")[2],), policy)
    text = config.get("text_config", config)
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", True))
    heads = [name for name in places if _last(name) in HEAD]
    head = heads[0] if heads and not tied else _named(places, EMBEDDING, policy)
    scale = _tensor(places[norm], norm).rows() + np.float32(family.gain_offset)
    centred = norm.removesuffix("weight") + "bias" in places
    return OutputHead(scale, centred, _tensor(places[head], head))


def stream_gain(policy: str | Path, layer: int, site: str) -> np.ndarray:
    """The gain of the norm between a layer's site and the residual stream [d_model, or 1 for none].

    ValueError where the checkpoint has no tensor of the norm that its family has there.
    """
    family = of_family(_config(policy)["model_type"])
    norm = {"mlp": family.mlp_norm, "attn": family.attention_norm}.get(site)
    if not norm:
        return np.ones(1, dtype=np.float32)
    places, ends = _places(Path(policy)), f".{layer}.{norm}.weight"
    names = [name for name in places if name.endswith(ends) and not re.search("vision", name)]
    if not names:
        raise ValueError(
            f"{policy}: no tensor's name ends with {ends}, so that promoted tokens cannot be read;"
            " is the checkpoint complete?"
        )
    return _tensor(places[names[0]], names[0]).rows() + np.float32(family.gain_offset)


def promoted_tokens(
    directions: np.ndarray, head: OutputHead, vocabulary: Tokenizer, top: int
) -> list[Promoted]:
    """The `top` tokens whose logits each of `directions` [latent, d_model] raises and lowers most.

    The direct path is followed: final norm and unembedding, without the blocks between. Rows of the
    unembedding without a token are left out.
    """
    normed = head.normed(directions)
    tokens = min(len(head.unembedding.values), vocabulary.get_vocab_size(with_added_tokens=True))
    largest, smallest = _Largest(len(normed), top), _Largest(len(normed), top)
    total = np.zeros(normed.shape[1])
    for start in range(0, tokens, ROWS):
        rows = head.unembedding.rows(start, min(start + ROWS, tokens))
        total += rows.sum(0, dtype=np.float64)
        logits = normed @ rows.T
        largest.add(logits, start)
        smallest.add(-logits, start)
    mean = normed @ (total / max(tokens, 1))

    def named(ids: np.ndarray, logits: np.ndarray) -> list[tuple[str, float]]:
        texts = (token_text(vocabulary, int(n)) for n in ids)
        return list(zip(texts, logits.tolist(), strict=True))

    return [
        Promoted(
            named(largest.ids[i], largest.values[i] - mean[i]),
            named(smallest.ids[i], -smallest.values[i] - mean[i]),
        )
        for i in range(len(normed))
    ]


def token_text(vocabulary: Tokenizer, token: int) -> str:
    """The text of a token, or its name in the vocabulary where its bytes are no text of their own.

    A space in front of a word is kept.
    """
    name = vocabulary.id_to_token(token) or f"[{token}]"
    if name.startswith(WORD_BEGINNING):
        return name.replace(WORD_BEGINNING, " ")
    text = vocabulary.decode([token], skip_special_tokens=False)
    return text if text and "\ufffd" not in text else name


def read_vocabulary(policy: str | Path) -> Tokenizer:
    """The tokenizer of the checkpoint in the folder `policy`."""
    with readable(Path(policy) / "tokenizer.json") as path:
        return Tokenizer.from_file(str(path))


class _Largest:
    """The largest of values [row, column] that come in parts, with the numbers of their columns."""

    def __init__(self, rows: int, top: int) -> None:
        self.top = top
        self.values, self.ids = np.zeros((rows, 0)), np.zeros((rows, 0), dtype=np.int64)

    def add(self, values: np.ndarray, start: int) -> None:
        """Take in `values` [row, column], whose first column has the number `start`."""
        ids = np.broadcast_to(np.arange(start, start + values.shape[1]), values.shape)
        values, ids = np.hstack([self.values, values]), np.hstack([self.ids, ids])
        if values.shape[1] > self.top:
            kept = np.argpartition(-values, self.top - 1, axis=1)[:, : self.top]
            values, ids = (np.take_along_axis(one, kept, 1) for one in (values, ids))
        order = np.lexsort((ids, -values), axis=1)
        self.values, self.ids = (np.take_along_axis(one, order, 1) for one in (values, ids))


def _config(policy: str | Path) -> dict[str, Any]:
    """The configuration of the checkpoint in the folder `policy`."""
    with readable(Path(policy) / "config.json") as path:
        return json.loads(path.read_text(encoding="utf-8"))


def _last(name: str) -> str:
    """The module that a tensor of a weight belongs to, empty for one of a block or of no weight."""
    parts = name.split(".")
    inside = any(part.isdigit() for part in parts)
    return parts[-2] if len(parts) > 1 and parts[-1] == "weight" and not inside else ""


def _named(places: dict[str, Path], wanted: tuple[str, ...], policy: str | Path) -> str:
    """The tensor of a checkpoint whose module has one of the `wanted` names."""
    names = sorted(name for name in places if _last(name) in wanted)
    # Checkpoints that read images have norms of their own beside those of the language model.
    names = [name for name in names if not re.search("vision|projector", name)]
    if not names:
        raise ValueError(
            f"{policy}: no tensor is named {' or '.join(wanted)} outside the blocks, so that"
            " promoted tokens cannot be read; is it a checkpoint of a supported family?"
        )
    return names[0]


def _places(policy: Path) -> dict[str, Path]:
    """The file of every tensor of a checkpoint."""
    if (policy / WEIGHTS).is_file():
        names = ((name, policy / WEIGHTS) for name in _header(policy / WEIGHTS)[0])
        return dict(names)
    with readable(policy / INDEX) as path:
        placed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    return {name: policy / file for name, file in placed.items()}


def _header(path: Path) -> tuple[dict[str, dict], int]:
    """The entries of a safetensors file by name, and where its values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _tensor(path: Path, name: str) -> Tensor:
    """A tensor of a file; its values come from disk when they are touched."""
    with readable(path) as file:
        entries, start = _header(file)
        kind, shape = entries[name]["dtype"], tuple(entries[name]["shape"])
        if kind not in TYPES:
            raise ValueError(f"the tensor {name} has the type {kind}; expected {', '.join(TYPES)}")
        offset = start + entries[name]["data_offsets"][0]
        return Tensor(np.memmap(file, TYPES[kind], "r", offset, shape), kind == "BF16")
