"""Geometry of a dictionary's decoder: how its directions share the space that they lie in."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lfp.sae.architectures.base import SparseAutoencoder

#: Cosine from which on two latents are near duplicates of each other.
NEAR = 0.9
#: Rows whose cosines with all others are held at once.
_ROWS = 1024


def frame_geometry(directions: torch.Tensor) -> dict[str, float]:
    """The geometry of the rows of `directions` [latent, d_in], by their cosines.

    Returns
    -------
    dict
        ``participation``: participation ratio (sum of s)^2 / sum of s^2 of the eigenvalues s of the
        frame operator W' W, the number of dimensions that the rows fill evenly, d_in at most.
        ``localisation``: mean over rows of 1 / sum over rows of cos^2, the share of a dimension
        that a row has for itself. It is 1 for orthogonal rows, and d_in over their number for rows
        that fill the space evenly (a tight frame); as many random rows have d_in / (d_in + n - 1)
        in expectation of the sum. ``near_duplicates``: share of rows that have another one with a
        cosine of :data:`NEAR` or more.
    """
    unit = F.normalize(directions.double(), dim=1)
    squares, nearest = [], []
    for start in range(0, len(unit), _ROWS):
        cosine = unit[start : start + _ROWS] @ unit.T
        squares.append(cosine.pow(2).sum(1))
        place = torch.arange(len(cosine))
        cosine[place, start + place] = -1.0
        nearest.append(cosine.max(1).values)
    of_row = torch.cat(squares)
    return {
        "participation": (len(unit) ** 2 / of_row.sum()).item(),
        "localisation": (1 / of_row).mean().item(),
        "near_duplicates": (torch.cat(nearest) >= NEAR).double().mean().item(),
    }


def alignment(sae: SparseAutoencoder) -> float:
    """Mean cosine of a latent's encoder and decoder: 1 by construction where these are tied."""
    return F.cosine_similarity(sae.W_enc.T.double(), sae.W_dec.double(), dim=1).mean().item()


def decoder_geometry(sae: SparseAutoencoder) -> dict[str, float]:
    """:func:`frame_geometry` of the decoder of `sae`, and its :func:`alignment`."""
    return {**frame_geometry(sae.W_dec), "alignment": alignment(sae)}
