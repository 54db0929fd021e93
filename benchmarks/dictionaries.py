"""How well each architecture of autoencoders finds features that are known.

    python -m benchmarks.dictionaries

Activations are sums of a few of 64 directions in 32 dimensions (:class:`Truth`). Every variant is
trained with the shipped trainer at several learning rates and counts at the one whose FVU on
held-out activations is lowest; the spread is that over seeds of the weights and of the batches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from lfp.claims.origin import machine
from lfp.evaluation.fidelity import Shrinking
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.training.loop import train
from lfp.settings import Autoencoder

RESULTS = Path(__file__).parent / "results" / "dictionaries.json"
WIDTH, FEATURES, TOKENS, HELD_OUT = 32, 64, 20_000, 5_000
#: A feature of rank r is active on a share of the tokens of the first over r to the second (Zipf).
MOST_FREQUENT, EXPONENT = 0.3, 0.7
#: Pairs of a parent and a child that is active only where its parent is, by rank.
HIERARCHY = ((0, 8), (1, 16), (2, 24), (3, 32))
#: Pairs whose second is drawn with the first on half of the tokens.
CORRELATED = ((4, 5), (6, 7), (9, 10), (11, 12))
#: Mean and standard deviation of the size of an active feature, that of noise in every dimension,
#: and the mean of the activations in every dimension.
SIZE, SIZE_SPREAD, NOISE, MEAN = 1.0, 0.25, 0.01, 1.0
#: Steps in which random directions move apart, to cosines of at most .22, and their length.
SPREADING, STRIDE = 500, 0.05
RATES = (0.001, 0.003, 0.01, 0.03)
SEEDS = (0, 1, 2)
#: Seed of the tokens from which the values are taken above which latents count.
KNOWN = 3
#: Active latents of a token that variants are asked for, about as many as it has features.
ACTIVE = 3
#: Those that every token has of `topk`: nine of ten tokens have no more features. With 3, an oracle
#: that keeps a token's largest features has an F1 of .894.
ACTIVE_OF_EACH = 5
#: Settings of all variants; none ends before its last epoch.
COMMON = {
    "tied": False, "batch_size": 512, "epochs": 100, "tolerance": None, "other_seed": False
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "standard, tied": {"architecture": "standard", "tied": True},
    "standard": {"architecture": "standard"},
    "topk": {"architecture": "topk", "k": ACTIVE_OF_EACH},
    "batchtopk": {"architecture": "batchtopk"},
    "jumprelu": {"architecture": "jumprelu"},
    "gated": {"architecture": "gated"},
    "matryoshka": {"architecture": "matryoshka"},
}
#: Variants that are also trained, at their best rate, where every token has as many features.
WITH_EQUAL_COUNTS = ("topk", "batchtopk")
#: Targets of L0 for which JumpReLU is trained, too, at its best rate.
TARGETS = (8, 16, 32)
#: Measures of a printed line.
SHOWN = ("fvu", "l0", "f1", "f1_at_0", "mcc", "shrinkage", "dead")


@dataclass(frozen=True)
class Truth:
    """Features whose directions and activity are known.

    Attributes
    ----------
    directions
        Unit vectors [feature, width].
    shares
        The share of the tokens on which each feature is active.
    equal_counts
        Whether a token has exactly :data:`ACTIVE` features, drawn in proportion to the shares,
        rather than each feature on its own but for :data:`HIERARCHY` and :data:`CORRELATED`.
    """

    directions: np.ndarray
    shares: np.ndarray
    equal_counts: bool = False

    @classmethod
    def of_seed(cls, seed: int, equal_counts: bool = False) -> Truth:
        """Random directions that have moved apart."""
        directions = random_directions(seed)
        for _ in range(SPREADING):
            cosine = directions @ directions.T - np.eye(FEATURES)
            directions = directions - STRIDE * cosine**3 @ directions
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        shares = MOST_FREQUENT / np.arange(1, FEATURES + 1) ** EXPONENT
        return cls(directions, shares, equal_counts)

    def drawn(self, tokens: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Activations [token, width] of float32, and the codes [token, feature] behind them."""
        rng = np.random.default_rng(seed)
        active = (self._equal if self.equal_counts else self._varying)(tokens, rng)
        code = active * np.abs(rng.normal(SIZE, SIZE_SPREAD, active.shape))
        noise = rng.normal(MEAN, NOISE, (tokens, WIDTH))
        return (code @ self.directions + noise).astype(np.float32), code

    def _varying(self, tokens: int, rng: np.random.Generator) -> np.ndarray:
        draws = rng.random((tokens, FEATURES))
        for first, second in CORRELATED:
            together = rng.random(tokens) < 0.5
            draws[together, second] = draws[together, first]
        active = draws < self.shares
        for parent, child in HIERARCHY:
            given_parent = self.shares[child] / self.shares[parent]
            active[:, child] = active[:, parent] & (draws[:, child] < given_parent)
        return active

    def _equal(self, tokens: int, rng: np.random.Generator) -> np.ndarray:
        keys = rng.gumbel(size=(tokens, FEATURES)) + np.log(self.shares)
        return keys >= np.partition(keys, -ACTIVE, axis=1)[:, [-ACTIVE]]


def random_directions(seed: int) -> np.ndarray:
    """Unit vectors [feature, width] without order."""
    directions = np.random.default_rng(seed).normal(size=(FEATURES, WIDTH))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def f1_scores(active: np.ndarray, guessed: np.ndarray) -> np.ndarray:
    """F1 [pair] of `guessed` as a guess at `active`, both [token, pair] and boolean."""
    both = (active & guessed).sum(0)
    return 2 * both / np.maximum(active.sum(0) + guessed.sum(0), 1)


def best_level(active: np.ndarray, latent: np.ndarray) -> float:
    """The value of a `latent` [token] above which it guesses at `active` [token] best, by F1.

    Of values that guess alike it is the lowest, and at least 0.
    """
    order = np.argsort(-latent, kind="stable")
    guesses = np.arange(1, len(latent) + 1)
    f1 = 2 * np.cumsum(active[order]) / (active.sum() + guesses)
    ends = np.append(np.diff(latent[order]) < 0, True)  # equal values are guessed together
    best = int(np.argmax(np.where(ends & (latent[order] > 0), f1, 0)))
    return max(0.0, float(latent[order][best + 1])) if best + 1 < len(latent) else 0.0


def measures(
    directions: np.ndarray,
    latents: np.ndarray,
    truth: Truth,
    code: np.ndarray,
    known: tuple[np.ndarray, np.ndarray],
) -> dict[str, float]:
    """How well latents are the features.

    ``mcc`` is the mean cosine of features and latents that are matched one to one (Hungarian
    algorithm). Its sign counts: both are only ever added, so that a latent that points away from a
    feature is none of it. ``f1`` is the mean over these pairs of F1, of the tokens of the latent as
    a guess at those of the feature, above the value of the latent that is best on other tokens:
    where a token has fewer features than it must have latents, the rest of these are small.
    ``f1_at_0`` takes any value above 0.

    Parameters
    ----------
    directions, latents
        Those of a dictionary, [latent, width] and [token, latent].
    truth, code
        The features, and their codes [token, feature] of the same tokens.
    known
        Latents and codes of the other tokens.
    """
    cosine = truth.directions @ directions.T
    features, matched = linear_sum_assignment(cosine, maximize=True)
    active, values = code[:, features] > 0, latents[:, matched]
    levels = [
        best_level(known[1][:, feature] > 0, known[0][:, latent])
        for feature, latent in zip(features, matched, strict=True)
    ]
    return {
        "f1": float(f1_scores(active, values > np.array(levels)).mean()),
        "f1_at_0": float(f1_scores(active, values > 0).mean()),
        "mcc": float(cosine[features, matched].mean()),
    }


@torch.no_grad()
def judged(
    sae: SparseAutoencoder, truth: Truth, x: np.ndarray, code: np.ndarray
) -> dict[str, float]:
    """All measures of an autoencoder on held-out activations.

    They are those of :func:`measures` and of :class:`~lfp.evaluation.fidelity.Shrinking`.

    Parameters
    ----------
    sae, truth
        The autoencoder and the features.
    x, code
        Activations [token, width], and the codes [token, feature] behind them.
    """
    reading = Shrinking(sae)
    reading.add(torch.from_numpy(x))
    whole = reading.metrics()
    other, known = truth.drawn(HELD_OUT, KNOWN)
    latents, others = (sae.encode(torch.from_numpy(values)).numpy() for values in (x, other))
    return {
        "fvu": whole["fvu"], "l0": whole["l0"],
        **measures(sae.W_dec.numpy(), latents, truth, code, (others, known)),
        "shrinkage": whole["shrinkage"], "dead": whole["dead_fraction"],
    }  # fmt: skip


def controls(truth: Truth, x: np.ndarray, code: np.ndarray) -> dict[str, dict[str, float]]:
    """F1 and MCC of the features themselves, of a token's largest ones, and of random directions.

    Of the last a token of `x` [token, width] with its `code` has the :data:`ACTIVE` largest.
    """
    random, (other, known) = random_directions(987), truth.drawn(HELD_OUT, KNOWN)

    def of_random(values: np.ndarray) -> np.ndarray:
        latents = (values - x.mean(0)) @ random.T
        smallest = np.partition(latents, -ACTIVE, axis=1)[:, [-ACTIVE]]
        return latents * (latents >= smallest)

    def largest(codes: np.ndarray, k: int) -> np.ndarray:
        return codes * (codes >= np.partition(codes, -k, axis=1)[:, [-k]])

    of_largest = {
        f"oracle, {k} largest": measures(
            truth.directions, largest(code, k), truth, code, (largest(known, k), known)
        )
        for k in (ACTIVE, ACTIVE_OF_EACH)
    }
    return of_largest | {
        "oracle": measures(truth.directions, code, truth, code, (known, known)),
        "random decoder": measures(random, of_random(x), truth, code, (of_random(other), known)),
    }


def over_seeds(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation of every measure over seeds; of one seed there is none."""
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else None,
        }
        for name in rows[0]
    }


def at_best_rate(
    variant: Mapping[str, Any],
    truth: Truth,
    active: int = ACTIVE,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
) -> dict[str, Any]:
    """Measures of a variant at the rate of its lowest mean FVU, and some of them by rate.

    Parameters
    ----------
    variant
        Settings beside :data:`COMMON`.
    truth
        The features that are to be found.
    active
        Active latents of a token that are asked for.
    rates, seeds
        Learning rates, and seeds of the weights and batches; the data are the same for all.
    """
    x, _ = truth.drawn(TOKENS, 1)
    seen = truth.drawn(HELD_OUT, 2)
    by_rate = {}
    for rate in rates:
        asked = {"k": active, "l0": float(active), "learning_rate": rate}
        settings = Autoencoder(**(COMMON | asked | dict(variant)))
        trained = [train(x, [FEATURES], settings, seed).autoencoders[0] for seed in seeds]
        by_rate[rate] = over_seeds([judged(sae, truth, *seen) for sae in trained])
    best = min(by_rate, key=lambda rate: by_rate[rate]["fvu"]["mean"])
    means = {
        str(rate): {name: row[name]["mean"] for name in ("fvu", "l0", "f1", "mcc")}
        for rate, row in by_rate.items()
    }
    return {"learning_rate": best, **by_rate[best], "by_rate": means}


def shown(name: str, row: Mapping[str, Any]) -> str:
    """A line with the means and standard deviations of a row."""
    values = (f"{key} {row[key]['mean']:.3f} ({row[key]['sd']:.3f})" for key in SHOWN)
    return f"{name} at {row['learning_rate']}: {', '.join(values)}"


def main() -> None:
    """Print a line for every variant and write all beside the other results."""
    torch.set_num_threads(1)
    truth, equal = Truth.of_seed(0), Truth.of_seed(0, equal_counts=True)
    rows: dict[str, Any] = {}

    def add(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        print(shown(name, row), flush=True)

    for name, variant in VARIANTS.items():
        add(name, at_best_rate(variant, truth))
    for name in WITH_EQUAL_COUNTS:
        best = (rows[name]["learning_rate"],)
        variant = VARIANTS[name] | {"k": ACTIVE}
        add(f"{name}, equal counts", at_best_rate(variant, equal, rates=best))
    best = (rows["jumprelu"]["learning_rate"],)
    for target in TARGETS:
        row = at_best_rate(VARIANTS["jumprelu"], truth, target, best)
        add(f"jumprelu, l0 {target}", row)
    result = {
        "machine": machine(), "cpu_seconds": round(time.process_time()),
        "controls": controls(truth, *truth.drawn(HELD_OUT, 2)), "variants": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
