"""Mutual feature regularisation and pursuit dictionaries on features that are known.

    python -m benchmarks.alternatives

Activations are those of :mod:`benchmarks.dictionaries`. An autoencoder with a partner is held
against its twin, which has the same seed and no partner; a pursuit dictionary trains nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from benchmarks.dictionaries import (
    ACTIVE,
    COMMON,
    FEATURES,
    HELD_OUT,
    TOKENS,
    Truth,
    judged,
    over_seeds,
)
from lfp.claims.origin import machine
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.training.loop import train
from lfp.settings import Autoencoder, Mutual

RESULTS = Path(__file__).parent / "results" / "alternatives.json"
#: A feature is recovered by a latent that is matched with it and has at least this cosine.
RECOVERED = 0.9
#: Settings of the autoencoders with partners, the weights that are tried, and the seeds.
TOPK = {"architecture": "topk", "k": ACTIVE, "learning_rate": 0.01, "epochs": 30}
WEIGHTS, SEEDS = (0.1,), tuple(range(10))
#: Numbers of directions of pursuit dictionaries, and the shares that may be left unexplained.
SIZES, TAUS = (FEATURES, 4 * FEATURES), (0.1, 0.5)


def recovered(sae: SparseAutoencoder, truth: Truth) -> float:
    """The share of features that a latent of their own has, to :data:`RECOVERED`."""
    cosine = truth.directions @ sae.W_dec.detach().numpy().T
    places = linear_sum_assignment(cosine, maximize=True)
    return float((cosine[places] >= RECOVERED).mean())


def trained(truth: Truth, seed: int, size: int = FEATURES, **settings: Any) -> dict[str, float]:
    """Measures of one dictionary on held-out activations, with the recovered share.

    Parameters
    ----------
    truth
        The features that are to be found.
    seed
        Seed of weights and batches; the data are the same for all.
    size
        Number of latents.
    settings
        Settings beside those of :data:`benchmarks.dictionaries.COMMON`.
    """
    x, _ = truth.drawn(TOKENS, 1)
    chosen = Autoencoder(**(COMMON | settings))
    sae = train(x, [size], chosen, seed).autoencoders[0]
    row = judged(sae, truth, *truth.drawn(HELD_OUT, 2))
    return {**row, "recovered": recovered(sae, truth), "latents": sae.d_sae}


def gains(truth: Truth, weight: float, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measures with a partner and without, and their paired differences over `seeds`."""
    alone = [trained(truth, seed, **TOPK) for seed in seeds]
    mutual = Mutual(weight=weight)
    together = [trained(truth, seed, mutual=mutual, **TOPK) for seed in seeds]
    differences = {
        name: [one[name] - other[name] for one, other in zip(together, alone, strict=True)]
        for name in ("recovered", "fvu", "f1", "mcc")
    }
    return {
        "without": over_seeds(alone),
        "with": over_seeds(together),
        "difference": {
            name: {
                "mean": float(np.mean(values)),
                "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
            }
            for name, values in differences.items()
        },
        "seeds": len(seeds),
    }


def main() -> None:
    """Print a line for each weight and for each pursuit dictionary, and write all."""
    torch.set_num_threads(1)
    truth = Truth.of_seed(0)
    result: dict[str, Any] = {"mutual": {}, "itda": {}}
    for weight in WEIGHTS:
        row = result["mutual"][str(weight)] = gains(truth, weight)
        shown = (
            f"{name} {of['mean']:+.4f} ({of['standard_error']:.4f})"
            for name, of in row["difference"].items()
        )
        print(f"mutual, weight {weight}: {', '.join(shown)}", flush=True)
    for size in SIZES:
        for tau in TAUS:
            asked = {"architecture": "itda", "k": ACTIVE, "tau": tau}
            rows = [trained(truth, seed, size, **asked) for seed in SEEDS[:3]]
            row = result["itda"][f"{size} directions, tau {tau}"] = over_seeds(rows)
            shown = (f"{name} {of['mean']:.3f} ({of['sd']:.3f})" for name, of in row.items())
            print(f"itda, {size} directions, tau {tau}: {', '.join(shown)}", flush=True)
    result |= {"machine": machine(), "cpu_seconds": round(time.process_time())}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
