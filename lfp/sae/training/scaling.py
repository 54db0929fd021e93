"""The scale of a layer's activations, so that settings mean the same in every layer and model.

Without it one penalty gives 1 active latent in one layer and 60 in another whose activations are a
hundred times as large. Autoencoders are trained on (x - mean) / size, where the mean is a vector
and the size a scalar: the root of the mean over tokens and dimensions of (x - mean)^2. Both are
folded into the weights afterwards, so that nothing behind the training knows of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from lfp.sae.architectures.base import SparseAutoencoder

#: Tokens from whose activations the scale is taken, at most; they come shuffled.
SAMPLE = 131_072
#: Rows that are read at once.
_ROWS = 4096


@dataclass(frozen=True)
class Scale:
    """The mean [d_in] of activations, and their size about it (above 0)."""

    mean: torch.Tensor
    size: float

    @classmethod
    def none(cls, width: int, device: str = "cpu") -> Self:
        """The scale that leaves activations of a `width` as they are."""
        return cls(torch.zeros(width, device=device), 1.0)

    @classmethod
    def of(
        cls, activations: np.ndarray, rows: np.ndarray | None = None, device: str = "cpu"
    ) -> Self:
        """The scale of `activations` [token, d_in], or of the `rows` among them.

        The size is 1 where all activations are equal. Without activations nothing is scaled.
        """
        total = len(activations) if rows is None else len(rows)
        if not total:
            return cls.none(activations.shape[1], device)
        parts = [
            slice(start, min(start + _ROWS, total, SAMPLE))
            for start in range(0, min(total, SAMPLE), _ROWS)
        ]

        def read(part: slice) -> np.ndarray:
            return np.asarray(
                activations[part] if rows is None else activations[rows[part]], np.float64
            )

        count = min(total, SAMPLE)
        mean = sum(read(part).sum(0) for part in parts) / count
        square = sum(((read(part) - mean) ** 2).sum() for part in parts) / (count * len(mean))
        size = float(np.sqrt(square))
        return cls(torch.from_numpy(mean).float().to(device), size if size > 0 else 1.0)

    def applied(self, x: torch.Tensor) -> torch.Tensor:
        """Activations `x` [token, d_in] of float32 on this scale, written into their place."""
        return x.sub_(self.mean).div_(self.size)

    def fold(self, sae: SparseAutoencoder) -> None:
        """Make an autoencoder of scaled activations one of the activations themselves."""
        sae.fold(self.size)
        sae.shift(self.mean)
