"""Crosscoders on two sets of activations of which one has directions of its own.

    python -m benchmarks.crosscoders

Base and policy are sums of few of :data:`SHARED` directions with noise of each one's own, and the
policy has :data:`ALONE` more. The latents that the rule of docs/feature_diff.md calls the policy's
alone are counted, on the pair and on its nulls, for ``batchtopk`` crosscoders and for ones with an
L1 penalty, the control that is known to be bad (arXiv:2504.02922), at as many active latents and at
twice as many. They are counted once more where :data:`FAINT` shared directions are weak in the
base: an L1 penalty takes these out of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from benchmarks.dictionaries import over_seeds
from lfp.claims.origin import machine
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.pairs import specific
from lfp.sae.pairs.activations import Joined
from lfp.sae.training import loop
from lfp.settings import Autoencoder, FeatureDiff

RESULTS = Path(__file__).parent / "results" / "crosscoders.json"
#: Directions that base and policy share, and those that the policy has alone, and their width.
SHARED, ALONE, WIDTH = 40, 3, 24
#: Shared directions that may be weak in the base, and their strength there, of 1 in the policy.
FAINT, STRENGTH = 5, 0.15
#: Latents of a crosscoder, and a cosine at which one has a direction.
LATENTS, FOUND = 64, 0.97
RULE, SEEDS = FeatureDiff(), (0, 1, 2)
KEEPS = Autoencoder(
    architecture="batchtopk", k=3, tied=False, reads="pair", learning_rate=1e-2, batch_size=256,
    epochs=20, other_seed=False,
)  # fmt: skip
PENALISED = replace(KEEPS, architecture="standard", l0=3.0, epochs=60)
#: The crosscoders that are compared; those with a penalty take three times the passes to fit.
COMPARED = {
    "batchtopk": KEEPS,
    "standard": PENALISED,
    "standard, twice as many active": replace(PENALISED, l0=6.0),
}


def world(
    tokens: int = 12000, alone: int = ALONE, seed: int = 1, faint: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(base, policy, directions): sparse sums of directions with noise of each model's own.

    The last `alone` directions are in the policy alone, and the first `faint` ones weak in the
    base.
    """
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(SHARED + alone, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    active = rng.random((tokens, SHARED + alone)) < 0.06
    code = active * (1 + rng.random((tokens, SHARED + alone)))
    strengths = np.where(np.arange(SHARED) < faint, STRENGTH, 1.0)
    base = (code[:, :SHARED] * strengths) @ directions[:SHARED]
    base += 0.05 * rng.normal(size=(tokens, WIDTH))
    policy = code @ directions + 0.05 * rng.normal(size=(tokens, WIDTH))
    return base.astype(np.float32), policy.astype(np.float32), directions


def again(base: np.ndarray) -> np.ndarray:
    """The base with noise of another draw, in the place of a policy that is no other model."""
    noise = np.random.default_rng(9).normal(size=base.shape)
    return (base + np.float32(0.05) * noise).astype(np.float32)


def compared(
    joined: Joined, settings: Autoencoder = KEEPS, seed: int = 0
) -> tuple[SparseAutoencoder, pd.DataFrame]:
    """(dictionary, latents) of a crosscoder that has learned `joined`."""
    sae = loop.train(joined, [LATENTS], settings, seed=seed).autoencoders[0]
    return sae, specific.pair_latents(sae, joined, np.arange(0, len(joined), 2))


def cosines(sae: SparseAutoencoder, directions: np.ndarray) -> np.ndarray:
    """Cosines [latent, direction] of the latents' directions in the policy with known ones."""
    rows = F.normalize(sae.halves()[:, -1], dim=1).detach().numpy()
    return rows @ directions.T


def measured(settings: Autoencoder, seed: int) -> Mapping[str, float]:
    """What the rule calls of one crosscoder and of its nulls, and how well it reconstructs."""
    base, policy, directions = world()
    pair = Joined(base, policy, "pair")
    sae, latents = compared(pair, settings, seed)
    called = specific.called(latents, RULE).to_numpy()
    near = cosines(sae, directions[SHARED:])
    _, shuffled = compared(Joined(base, policy, "pair", shuffled=True), settings, seed)
    _, twice = compared(Joined(base, again(base), "pair"), settings, seed)
    x = torch.from_numpy(pair[:4000])
    code = sae.encode(x)
    error = (sae.decode(code) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    return {
        "called": float(called.sum()),
        "planted_called": float((near[called].max(0, initial=0) > FOUND).sum()),
        "planted_learned": float((near.max(0) > FOUND).sum()),
        "of_shuffled_sides": float(specific.called(shuffled, RULE).mean()),
        "of_the_base_twice": float(specific.called(twice, RULE).mean()),
        "fvu": error.item(),
        "l0": (code > 0).sum(1).float().mean().item(),
    } | where_some_are_faint(settings, seed)


def where_some_are_faint(settings: Autoencoder, seed: int) -> Mapping[str, float]:
    """The latents called, and wrongly called, where some shared directions are weak in the base."""
    base, policy, directions = world(faint=FAINT)
    sae, latents = compared(Joined(base, policy, "pair"), settings, seed)
    called = specific.called(latents, RULE).to_numpy()
    near = cosines(sae, directions[:SHARED])
    faint = latents[near[:, :FAINT].max(1) > FOUND]
    return {
        "faint_world_called": float(called.sum()),
        "faint_called": float((near[called].max(1, initial=0) > FOUND).sum()),
        "faint_dnorm": float(faint["dnorm"].mean()),
        "faint_nu_error": float(faint["nu_error"].mean()),
    }


def main() -> None:
    """Print a line for each kind, and write both."""
    torch.set_num_threads(1)
    result = {}
    for name, settings in COMPARED.items():
        row = result[name] = over_seeds([dict(measured(settings, seed)) for seed in SEEDS])
        shown = (f"{key} {of['mean']:.3f} ({of['sd']:.3f})" for key, of in row.items())
        print(f"{name}: {', '.join(shown)}", flush=True)
    about = {"seeds": len(SEEDS), "machine": machine(), "cpu_seconds": round(time.process_time())}
    RESULTS.write_text(json.dumps(result | about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
