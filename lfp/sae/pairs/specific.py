"""Latents of a dictionary that belong to the policy alone, and the null that they are held against.

A crosscoder has one code for both models and a direction of every latent in each. How the norms of
the two share out says in which model the latent is; but a latent that the base has as well can lose
its direction there where the code of another makes up for it (arXiv:2504.02922). So the latent's
size on each side is estimated again, from what the dictionary leaves of that side's activations and
from what it makes of them. A null dictionary of the same settings has learned from sides that
change places at random; what the same rule calls of it, it calls of no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.pairs.activations import Joined, joined_rows
from lfp.settings import FeatureDiff

#: Rows of activations that are read at once.
_ROWS = 2048


def mean_share(joined: Joined, rows: np.ndarray) -> float | None:
    """The share of the squared difference of policy and base, ||x_p - x_b||², that is its mean's.

    It is 1 where the two differ by one vector, whatever the token. `rows` are the tokens that are
    read; None where the two do not differ.
    """
    total, square = 0.0, 0.0
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        base, policy = (side[part].astype(np.float64) for side in (joined.base, joined.policy))
        difference = joined_rows(base, policy, "difference")
        total = total + difference.sum(0)
        square += float(np.square(difference).sum())
    return float(np.square(total).sum() / len(rows) / square) if square else None


@dataclass
class _Sums:
    """Sums over tokens for latent scaling, each [latent], or [side, latent]."""

    squares: torch.Tensor
    active: torch.Tensor
    errors: torch.Tensor
    outputs: torch.Tensor

    @classmethod
    def of(cls, sae: SparseAutoencoder, joined: Joined, rows: np.ndarray) -> _Sums:
        """Sums of the latents of `sae` on the `rows` of a pair's activations."""
        sides = sae.sides
        one, both = (
            torch.zeros(shape, dtype=torch.float64) for shape in ((sae.d_sae,), (sides, sae.d_sae))
        )
        sums = cls(squares=one, active=one.clone(), errors=both, outputs=both.clone())
        towards = sae.halves()[:, 1]  # the policy's directions
        for start in range(0, len(rows), _ROWS):
            x = torch.from_numpy(joined[rows[start : start + _ROWS]])
            latents = sae.encode(x)
            output = sae.decode(latents)
            sums.squares += latents.double().square().sum(0)
            sums.active += (latents > 0).sum(0)
            for into, values in ((sums.errors, x - output), (sums.outputs, output)):
                for side, of_side in enumerate(values.unflatten(1, (sides, -1)).unbind(1)):
                    into[side] += (latents * (of_side @ towards.T)).double().sum(0)
        return sums


@torch.no_grad()
def pair_latents(sae: SparseAutoencoder, joined: Joined, rows: np.ndarray) -> pd.DataFrame:
    """How much of each latent of a crosscoder is in the policy, and how much in the base.

    Parameters
    ----------
    sae
        A dictionary that reads a ``pair``.
    joined, rows
        The pair's activations, and the tokens among them that are read.

    Returns
    -------
    DataFrame
        A row per latent. ``frequency`` is the share of tokens that it is active on, ``dnorm`` the
        norm of its direction in the policy over the sum of both, ``cosine_to_base`` the cosine of
        the two directions. ``nu_error`` and ``nu_recon`` are latent scalings, the factor with which
        the latent times the policy's direction fits the base over that with which it fits the
        policy: the errors with the latent's own part put back, and the reconstructions, the base's
        without the latent's own part. A latent that is never active has neither.
    """
    sums, halves = _Sums.of(sae, joined, rows), sae.halves().double()
    norms = halves.norm(dim=2)
    along = (halves * halves[:, 1:]).sum(2).T  # [side, latent], with the policy's direction
    written = along * sums.squares
    errors, outputs = sums.errors + written, sums.outputs.clone()
    outputs[0] -= written[0]
    # Both fits are divided by the same squares, which cancel out of their ratio.
    return pd.DataFrame(
        {
            "latent": np.arange(sae.d_sae),
            "frequency": (sums.active / max(1, len(rows))).numpy(),
            "dnorm": (norms[:, 1] / norms.sum(1)).numpy(),
            "cosine_to_base": (along[0] / (norms[:, 0] * norms[:, 1]).clamp(min=1e-12)).numpy(),
            "nu_error": _ratio(errors),
            "nu_recon": _ratio(outputs),
        }
    )


def _ratio(fits: torch.Tensor) -> np.ndarray:
    """The base's fit over the policy's, of `fits` [side, latent]; missing where the latter is 0."""
    base, policy = fits.numpy()
    return np.divide(base, policy, out=np.full(len(base), np.nan), where=policy > 0)


def called(latents: pd.DataFrame, settings: FeatureDiff) -> pd.Series:
    """Whether each of the :func:`pair_latents` is the policy's alone, by all three thresholds."""
    return (
        (latents["dnorm"] > settings.min_dnorm)
        & (latents["nu_error"] < settings.max_nu_error)
        & (latents["nu_recon"] < settings.max_nu_recon)
    )


def against_null(latents: pd.DataFrame, null: pd.DataFrame, settings: FeatureDiff) -> pd.DataFrame:
    """The latents of a crosscoder and those of its null, with what the null says of each.

    ``null_quantile`` is the share of the null's active latents of a smaller ``dnorm``. No latent is
    ``specific`` where the rule calls more than ``max_null`` of the null's latents.
    """
    active = np.sort(null.loc[null["frequency"] > 0, "dnorm"].to_numpy())
    trusted = called(null, settings).mean() <= settings.max_null
    both = []
    for frame, is_null in ((latents, False), (null, True)):
        below = np.searchsorted(active, frame["dnorm"]) / max(1, len(active))
        specific = called(frame, settings) & (trusted or is_null)
        both.append(frame.assign(null=is_null, null_quantile=below, specific=specific))
    return pd.concat(both, ignore_index=True).assign(kind="pair")


def unique_latents(
    sae: SparseAutoencoder,
    other_seed: SparseAutoencoder,
    base: SparseAutoencoder,
    base_other_seed: SparseAutoencoder,
    settings: FeatureDiff,
) -> pd.DataFrame:
    """Latents of the policy's dictionary without a partner in the base's.

    A partner is the latent of the largest cosine of directions. Two dictionaries of one model
    differ by their seeds, so the null are the latents of the base's dictionary from another seed: a
    latent has no partner where its cosine is below the ``max_null`` quantile of theirs. What the
    policy's own other seed does not find again is no property of the policy, and not ``specific``.

    Parameters
    ----------
    sae, other_seed
        Dictionaries of the policy, of one size, from two seeds.
    base, base_other_seed
        Those of the base.
    settings
        The level ``max_null``.
    """
    null = _nearest(base_other_seed, base)
    level = np.quantile(null, settings.max_null, method="lower")
    both = []
    for cosine, again, is_null in (
        (_nearest(sae, base), _nearest(sae, other_seed), False),
        (null, np.full(len(null), np.nan), True),
    ):
        reproduced = is_null | (again >= level)
        both.append(
            pd.DataFrame(
                {
                    "latent": np.arange(len(cosine)),
                    "cosine_to_base": cosine,
                    "cosine_to_seed": again,
                    "null_quantile": np.searchsorted(np.sort(null), cosine) / len(null),
                    "specific": (cosine < level) & reproduced,
                }
            ).assign(null=is_null)
        )
    return pd.concat(both, ignore_index=True).assign(kind="base and policy")


def _nearest(sae: SparseAutoencoder, other: SparseAutoencoder) -> np.ndarray:
    """The largest cosine of each latent's direction with one of `other` [latent]."""
    return (sae.W_dec @ other.W_dec.T).max(1).values.detach().cpu().numpy().astype(float)


@torch.no_grad()
def difference_latents(sae: SparseAutoencoder, joined: Joined, rows: np.ndarray) -> pd.DataFrame:
    """How often each latent of a dictionary of the ``difference`` is active on the `rows`."""
    active = np.zeros(sae.d_sae)
    for start in range(0, len(rows), _ROWS):
        x = torch.from_numpy(joined[rows[start : start + _ROWS]])
        active += (sae.encode(x) > 0).sum(0).numpy()
    frame = pd.DataFrame({"latent": np.arange(sae.d_sae), "frequency": active / max(1, len(rows))})
    return frame.assign(kind="difference", null=False)
