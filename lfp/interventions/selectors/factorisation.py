"""Interactions of latents: a factorisation machine on random sets that are taken away.

The number of a model without a random set is y = b + sum over i of w_i z_i + sum over pairs of
<v_i, v_j> z_i z_j, where z_i is 1/2 for a latent that is taken away and -1/2 for one that is left
(Rendle 2010). Two latents of which either one does the work show in the pair and hardly in w, for
nothing changes before both are gone. What pairs explain beyond a linear model shows on sets that
neither has learned from.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import torch

from lfp.interventions.matching import by_layer
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.criteria import measured_without
from lfp.interventions.selectors.material import Material

#: Length of the vectors, weight of the ridge, number of starts, steps and size of a step.
RANK, RIDGE, STARTS, STEPS, STEP = 4, 1e-3, 3, 400, 0.05
#: Share of the sets that are held out.
HELD_OUT = 0.25
#: Latents that interactions are asked of, in multiples of those that a selector takes.
POOL = 2
#: Pairs that the rows of interactions are about, at most.
PAIRS = 10
#: Columns of the rows of interactions.
COLUMNS = (
    "layer", "feature", "other_layer", "other_feature", "machine", "interaction",
    "standard_error", "df", "linear_r2", "machine_r2", "masks",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A fitted factorisation machine.

    ``linear`` [latent] are w, ``pairs`` [latent, latent] the products <v_i, v_j>, 0 on the
    diagonal, both in units of the number; ``held_out`` are the numbers of the sets that it has not
    learned from, and ``linear_r2`` and ``machine_r2`` the shares of the variance that the linear
    model and the machine explain on them.
    """

    linear: np.ndarray
    pairs: np.ndarray
    held_out: np.ndarray
    linear_r2: float
    machine_r2: float

    def total(self) -> np.ndarray:
        """The variance [latent] over random sets that is due to each latent, alone or in pairs.

        It is the total effect of Homma and Saltelli (1996), not divided by the whole variance.
        """
        return self.linear**2 / 4 + (self.pairs**2).sum(1) / 16


def fitted(masks: np.ndarray, values: np.ndarray, seed: int) -> Machine:
    """The machine of `values` [set] of the model without the sets `masks` [set, latent].

    A quarter of the sets is held out. Without any variance nothing is explained.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))
    test, train = np.split(order, [round(HELD_OUT * len(values))])
    z, mean, spread = masks - 0.5, values[train].mean(), values[train].std()
    n = masks.shape[1]
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return Machine(np.zeros(n), np.zeros((n, n)), test, float("nan"), float("nan"))
    y = (values - mean) / spread
    design = np.c_[np.ones(len(z)), z]
    ridge = RIDGE * len(train) * np.diag([0.0, *np.ones(n)])
    gram = design[train].T @ design[train] + ridge
    start = np.linalg.solve(gram, design[train].T @ y[train])
    linear, pairs = _best_machine(torch.tensor(z[train]), torch.tensor(y[train]), start, seed)
    predicted = linear[0] + z @ linear[1:] + 0.5 * ((z @ pairs) * z).sum(1)
    return Machine(
        spread * linear[1:],
        spread * pairs,
        test,
        _explained(y[test], design[test] @ start),
        _explained(y[test], predicted[test]),
    )


def _best_machine(
    z: torch.Tensor, y: torch.Tensor, start: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [1 + latent] and products of pairs of the best of several starts.

    The linear part of all of them is first that of the linear model, `start`.
    """
    generator = torch.Generator().manual_seed(seed)
    best = (float("inf"), start, np.zeros((z.shape[1], z.shape[1])))
    for _ in range(STARTS):
        weights = torch.tensor(start, requires_grad=True)
        vectors = 0.3 * torch.randn(z.shape[1], RANK, generator=generator, dtype=z.dtype)
        vectors.requires_grad_(True)
        optimizer = torch.optim.AdamW([weights, vectors], lr=STEP, weight_decay=RIDGE)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            together = (z @ vectors) ** 2 - z**2 @ vectors**2
            error = (weights[0] + z @ weights[1:] + together.sum(1) / 2 - y).square().mean()
            error.backward()
            optimizer.step()
            decay.step()
        if error.item() < best[0]:
            products = (vectors @ vectors.T).detach().fill_diagonal_(0.0)
            best = (error.item(), weights.detach().numpy(), products.numpy())
    return best[1], best[2]


def _explained(y: np.ndarray, predicted: np.ndarray) -> float:
    """The share of the variance of `y` that a prediction explains."""
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def interaction(
    masks: np.ndarray, values: np.ndarray, pair: tuple[int, int]
) -> tuple[float, float, float]:
    """What a pair taken away together changes beyond the sum of the two, and how surely.

    It is the coefficient of the product of the pair's z in a linear model of all z and this product
    over `masks` [set, latent] with their `values`, with its standard error and the degrees of
    freedom of that: what the z leave over of the values, on what they leave over of the product
    (Frisch and Waugh 1933). All three are missing where the sets are no more than the coefficients.
    """
    z = masks - 0.5
    design = np.c_[np.ones(len(z)), z]
    both = np.c_[values, z[:, pair[0]] * z[:, pair[1]]]
    left, product = (both - design @ np.linalg.lstsq(design, both, rcond=None)[0]).T
    freedom, size = len(z) - design.shape[1] - 1, product @ product
    if freedom < 1 or size < 1e-9 * len(z):
        return float("nan"), float("nan"), float("nan")
    slope = float(left @ product / size)
    rest = left - slope * product
    return slope, float(np.sqrt(rest @ rest / freedom / size)), float(freedom)


def pooled(material: Material) -> list[tuple[int, int]]:
    """The latents of the largest attributions that interactions are asked of."""
    rank = material.effects["attributed"].abs()
    chosen = material.top(rank, POOL * material.asked.latents)
    return [(layer, feature) for layer in sorted(chosen) for feature in chosen[layer]]


@dataclass(frozen=True)
class Interactions:
    """What was learned from random sets of latents.

    ``latents`` are asked of, ``masks`` [set, latent] are 1 where a set has a latent, ``values``
    [set] the number of the model without each set, and ``machine`` has learned from them.
    """

    latents: list[tuple[int, int]]
    masks: np.ndarray
    values: np.ndarray
    machine: Machine


def interactions(material: Material) -> Interactions:
    """Take random sets of the latents of the largest attributions away, and learn from that."""
    latents = pooled(material)
    rng = np.random.default_rng(material.seed)
    masks = (rng.random((material.asked.masks, len(latents))) < 0.5).astype(float)
    sets = [by_layer([latents[i] for i in np.flatnonzero(mask)]) for mask in masks]
    values = measured_without(material, sets)
    return Interactions(latents, masks, values, fitted(masks, values, material.seed))


def interacting(material: Material) -> FeatureSet:
    """The latents that most of the variance over random sets is due to, alone or in pairs."""
    read = material.interactions
    total = read.machine.total()
    best = np.argsort(-total, kind="stable")[: material.asked.latents]
    return by_layer([read.latents[i] for i in best if total[i] > 0])


def interaction_rows(material: Material) -> pd.DataFrame:
    """The pairs of the largest products.

    Returns
    -------
    pandas.DataFrame
        A row per pair: ``layer``, ``feature``, ``other_layer``, ``other_feature``, ``machine``
        (its product in the machine), ``interaction`` with its ``standard_error`` and
        ``df`` (:func:`interaction`), ``linear_r2`` and ``machine_r2``, all on the sets that the
        machine, which chose the pairs, has not learned from, and ``masks``, their number.
    """
    read, rows = material.interactions, []
    masks, values = (of[read.machine.held_out] for of in (read.masks, read.values))
    pairs = list(combinations(range(len(read.latents)), 2))
    for first, second in sorted(pairs, key=lambda pair: -abs(read.machine.pairs[pair]))[:PAIRS]:
        beyond = interaction(masks, values, (first, second))
        rows.append((
            *read.latents[first], *read.latents[second], read.machine.pairs[first, second],
            *beyond, read.machine.linear_r2, read.machine.machine_r2, len(masks),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
