"""The activations of base and policy on the same tokens, as what a dictionary learns from.

A dictionary that reads a ``pair`` has both side by side, the base's first; one of the
``difference`` has the policy's less the base's; a ``pooled`` one has the activations of either
model as rows of their own, the two of a token one behind the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lfp.files.artefacts import open_tensor, read_json
from lfp.files.provenance import ArtefactError, rebuild_hint
from lfp.sae.outliers import RECORD, left_out_of, ordinary_rows, record_of, row_norms
from lfp.settings import BOTH


class Joined:
    """Rows of the activations of base and policy as `reads` joins them, read when asked for.

    Parameters
    ----------
    base, policy
        Activations [token, width] of the same tokens.
    reads
        One of :data:`~lfp.settings.BOTH`.
    shuffled
        Whether the two sides change places on half of the tokens, drawn at random. Neither side is
        a model then, which is the null of what is said of one side.

    Raises
    ------
    ValueError
        Where the two have different shapes.
    """

    def __init__(
        self, base: np.ndarray, policy: np.ndarray, reads: str, shuffled: bool = False
    ) -> None:
        if base.shape != policy.shape:
            raise ValueError(
                "base and policy: activations of one site on the same tokens are expected, got"
                f" arrays of {base.shape} and {policy.shape}"
            )
        self.base, self.policy, self.reads = base, policy, reads
        tokens, width = base.shape
        self.turned = np.random.default_rng(0).random(tokens) < 0.5 if shuffled else None
        self.shape = (2 * tokens if reads == "pooled" else tokens, width * (1 + (reads == "pair")))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            places = np.arange(start, stop, step)
        else:
            places = rows
        if self.reads == "pooled":
            joined = np.empty((len(places), self.shape[1]), np.float32)
            for side, source in enumerate((self.base, self.policy)):
                here = places % 2 == side
                joined[here] = source[places[here] // 2]
            return joined
        base, policy = (np.asarray(side[rows], np.float32) for side in (self.base, self.policy))
        if self.turned is not None:
            turned = self.turned[places][:, None]
            base, policy = np.where(turned, policy, base), np.where(turned, base, policy)
        return joined_rows(base, policy, self.reads)

    def ordinary_rows(self, largest_norm: float) -> np.ndarray | None:
        """Indices of the rows that are no outliers in either model; None for all of them."""
        if math.isinf(largest_norm):
            return None
        inside = [row_norms(side) <= largest_norm for side in (self.base, self.policy)]
        kept = np.stack(inside, 1).ravel() if self.reads == "pooled" else inside[0] & inside[1]
        return None if kept.all() else np.flatnonzero(kept)


def joined_rows(base: Any, policy: Any, reads: str) -> Any:
    """Arrays or tensors `base` and `policy` [token, width] side by side, or their difference.

    They are side by side where `reads` is ``pair``.
    """
    if reads == "difference":
        return policy - base
    both = [base, policy]
    return torch.cat(both, -1) if isinstance(base, torch.Tensor) else np.concatenate(both, -1)


@dataclass(frozen=True)
class Material:
    """What the dictionaries of a layer learn from.

    Parameters
    ----------
    activations
        Activations [token, d_in].
    rows
        Indices of those that are no outliers; None for all of them.
    largest_norm
        The largest norm of one model's activation that is no outlier; infinite without a limit.
    width
        Width of the activations of one model.
    left_out
        Number of positions of the texts that are left out.
    """

    activations: np.ndarray | Joined
    rows: np.ndarray | None
    largest_norm: float
    width: int
    left_out: int


def material(
    folder: str | Path, base: str | Path | None, layer: int, reads: str, shuffled: bool = False
) -> Material:
    """The activations of a layer for dictionaries that read what `reads` says.

    Parameters
    ----------
    folder
        Folder of a harvest: of the model that is read, of the policy where both are.
    base
        Folder of the base's harvest where both are read, else None.
    layer, reads
        The layer, and the setting of that name.
    shuffled
        As of :class:`Joined`.

    Raises
    ------
    ArtefactError
        Where the two were not harvested on the same tokens in the same order.
    """
    ours = record_of(folder, layer)
    policy, limit = _opened(folder, layer), _limit(ours)
    if reads not in BOTH:
        rows = ordinary_rows(policy, ours)
        return Material(policy, rows, limit, policy.shape[1], left_out_of(ours))
    check_same_tokens(base, folder)
    theirs = record_of(base, layer)
    joined = Joined(_opened(base, layer), policy, reads, shuffled)
    # One limit for both, so that no token is ordinary in one model alone.
    limit = min(limit, _limit(theirs))
    rows = joined.ordinary_rows(limit)
    dropped = 0 if rows is None else len(joined) - len(rows)
    unread = [left_out_of(record) - record["outliers"] for record in (ours, theirs)]
    left_out = dropped + (sum(unread) if reads == "pooled" else unread[0])
    return Material(joined, rows, limit, policy.shape[1], left_out)


def check_same_tokens(base: str | Path, policy: str | Path) -> None:
    """Raise ArtefactError unless two harvests have read the same tokens in the same order."""
    one, two = (read_json(Path(folder) / RECORD).get("tokens") for folder in (base, policy))
    if one is None or one != two:
        raise ArtefactError(
            f"{base} and {policy}: a dictionary of both models needs their activations on the same"
            f" tokens in the same order, and the harvests read {one} and {two} (`tokens` in"
            f" {RECORD}); {rebuild_hint(base)}"
        )


def file_of(folder: str | Path, layer: int) -> Path:
    """The file of a layer's activations in the folder of a harvest."""
    return Path(folder) / f"layer{layer}.safetensors"


def _opened(folder: str | Path, layer: int) -> np.ndarray:
    return open_tensor(file_of(folder, layer), "activations")


def _limit(record: dict[str, Any]) -> float:
    return math.inf if record["largest_norm"] is None else record["largest_norm"]
