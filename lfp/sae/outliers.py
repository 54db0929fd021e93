"""Activations that are left out of autoencoders: outliers by their norm.

Some tokens, the first of a text above all, have activations hundreds of times as large as the rest
(attention sinks). A few of them would make up nearly all of the variance: an autoencoder would
learn them alone, and its FVU would say nothing of ordinary tokens. An outlier is an activation
whose norm exceeds a multiple of the median norm of its layer. The limit is taken once, from the
activations that were harvested, and goes with the autoencoders, so that training, evaluation and
all that reads latents agree on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lfp.files.artefacts import read_json

#: The file beside harvested activations that has the limit and the counts of every layer.
RECORD = "outliers.json"
#: Reasons for which tokens are not harvested (:func:`lfp.sae.reading.left_out`).
LEFT_OUT = ("added", "copies")
#: Rows whose norms are taken at once.
_ROWS = 4096


def row_norms(activations: np.ndarray) -> np.ndarray:
    """Euclidean norms [token] of `activations` [token, width]."""
    parts = [
        np.linalg.norm(activations[start : start + _ROWS].astype(np.float32), axis=1)
        for start in range(0, len(activations), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def largest_norm(norms: np.ndarray, multiple: float | None) -> float:
    """The largest norm that is no outlier: `multiple` times the median of `norms`.

    It is infinite without a `multiple`, and where half of the activations are 0.
    """
    median = float(np.median(norms)) if len(norms) else 0.0
    return multiple * median if multiple and median else math.inf


def described(
    activations: np.ndarray, multiple: float | None, left_out: Mapping[str, int]
) -> dict[str, Any]:
    """The entry of one layer in :data:`RECORD`.

    It has the largest norm (None for no limit), the number of activations, and the number of
    outliers among them. Beside them stand counts of the tokens that were not harvested: ``added``
    by the tokenizer in front of texts, and ``copies`` of the beginning of another text.
    """
    norms = row_norms(activations) if multiple else np.zeros(0, np.float32)
    limit = largest_norm(norms, multiple)
    return {
        "largest_norm": limit if math.isfinite(limit) else None,
        "tokens": len(activations),
        "outliers": int((norms > limit).sum()),
        **{reason: left_out.get(reason, 0) for reason in LEFT_OUT},
    }


def record_of(folder: str | Path, layer: int) -> dict[str, Any]:
    """The entry of a layer in the record beside the activations in `folder`."""
    return read_json(Path(folder) / RECORD)["layers"][str(layer)]


def left_out_of(record: dict[str, Any]) -> int:
    """Number of positions that the `record` of a layer counts as left out."""
    return sum(record[name] for name in ("outliers", *LEFT_OUT))


def ordinary_rows(activations: np.ndarray, record: dict[str, Any]) -> np.ndarray | None:
    """Indices of the activations that are no outliers by the `record`; None for all of them."""
    if not record["outliers"]:
        return None
    return np.flatnonzero(row_norms(activations) <= record["largest_norm"])
