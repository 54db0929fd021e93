"""Steering that raises some latents and leaves the others alone (SAE-TS: Chalnev et al. 2024).

The decoder's direction of a latent is what activates it where it is read; what a model does with it
later may activate others more. So the effect of many directions on all latents is measured on what
the model writes under them, a linear map is fitted to it, and a vector is read from the map: the
one whose effect is on the wanted latents, without what every direction does.

The untouched model reads what was written, so that a latent counts where the text has it, and not
where the vector itself lies along it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.interventions.completions import Written, write
from lfp.models.hooks import captured
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.steering.changes import Changes, applied, constant

#: Weights of the penalty that are tried; that of the least leave-one-out error is taken.
PENALTIES = tuple(10.0**power for power in range(-6, 4))
#: Share of the directions that the fit is tested on.
HELD_OUT = 0.2


@dataclass(frozen=True)
class EffectMap:
    """A linear map of what steering does to latents: effect = x `weight` + `bias`.

    Parameters
    ----------
    weight
        [width, latent].
    bias
        [latent]: what steering in any direction does.
    r2
        Share of the variance of effects that the map explains on directions that it was not fitted
        to, all latents together; NaN without variance.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    r2: float


def fitted_map(directions: torch.Tensor, effects: torch.Tensor, seed: int) -> EffectMap:
    """The map of `effects` [direction, latent] on `directions` [direction, width], by ridge.

    A part of the directions is kept for the test. The map is that of the others.

    Parameters
    ----------
    directions
        Unit vectors that a model was steered by.
    effects
        What each did to every latent's mean, against the untouched model.
    seed
        Seed of the choice of the directions that are kept for the test.

    Raises
    ------
    ValueError
        If there are fewer than ten directions.
    """
    n = len(directions)
    if n < 10:
        raise ValueError(f"a map of effects needs 10 directions at least, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    tested, fitted = np.split(order, [max(2, round(HELD_OUT * n))])
    x, y = directions.double().cpu().numpy(), effects.double().cpu().numpy()
    ridge = RidgeCV(alphas=PENALTIES).fit(x[fitted], y[fitted])
    missed = y[tested] - ridge.predict(x[tested]).reshape(len(tested), -1)
    spread = float(((y[tested] - y[tested].mean(0)) ** 2).sum())
    r2 = 1 - float((missed**2).sum()) / spread if spread else float("nan")
    weight = torch.tensor(np.atleast_2d(ridge.coef_).T, dtype=torch.float32)
    bias = torch.tensor(np.atleast_1d(ridge.intercept_), dtype=torch.float32)
    return EffectMap(weight, bias, r2)


def targeted_vector(effects: EffectMap, targets: Mapping[int, float]) -> torch.Tensor:
    """The unit vector [width] whose effect is on the latents `targets`.

    It is norm(u - λ norm(W b)) with u = norm(W t), where t has a sign at each target and b is the
    bias. λ is the length of the bias over that of the effect of u, at most 1. It is 1 in the paper,
    where the bias is large; a bias that is next to none has a direction of noise, which would have
    as much weight in the vector as the targets.
    """
    wanted = torch.zeros_like(effects.bias)
    wanted[list(targets)] = torch.tensor(list(targets.values()), dtype=wanted.dtype)
    towards, always = (F.normalize(effects.weight @ part, dim=0) for part in (wanted, effects.bias))
    reach = (towards @ effects.weight).norm().clamp(min=torch.finfo().tiny)
    share = (effects.bias.norm() / reach).clamp(max=1.0)
    return F.normalize(towards - share * always, dim=0)


def side_effect_mass(effects: np.ndarray, targets: Collection[int]) -> float:
    """Share of the absolute `effects` [latent] of a vector that is not on the latents `targets`.

    NaN where it has no effect at all.
    """
    sizes = np.abs(np.asarray(effects, float))
    total = sizes.sum()
    return float(1 - sizes[list(targets)].sum() / total) if total else float("nan")


@dataclass(frozen=True)
class LatentReading:
    """Reads the latents of what a model writes to prompts under changes.

    Parameters
    ----------
    model, tokenizer
        The model that is steered and its tokenizer.
    sae
        The dictionary, of the layer that is steered.
    prompts
        Token ids of held-out prompts.
    new_tokens, batch_size
        Tokens to sample, at most, and completions in a batch.
    seed
        Seed of sampling; all changes draw the same uniforms.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sae: SparseAutoencoder
    prompts: Sequence[Sequence[int]]
    new_tokens: int
    batch_size: int
    seed: int

    @torch.no_grad()
    def effects(self, changes: Sequence[Changes], strengths: Sequence[float]) -> np.ndarray:
        """What each change at its strength does to the mean of every latent [change, latent]."""
        edits = [applied(of, at) for of, at in zip(changes, strengths, strict=True)]
        together, means = max(1, self.batch_size // len(self.prompts)), []
        for start in Progress(range(0, len(edits) + 1, together), desc="effects on latents"):
            part = [{}, *edits][start : start + together]
            written = write(
                self.model, self.tokenizer, part, self.prompts, self.new_tokens, self.seed,
                self.sae.site,
            )  # fmt: skip
            means.append(self._latents(written).reshape(len(part), len(self.prompts), -1).mean(1))
        values = torch.cat(means).double().cpu().numpy()
        return values[1:] - values[0]

    def _latents(self, written: Written) -> torch.Tensor:
        """Mean latents [row, latent] over the tokens of each response."""
        with captured(self.model, [self.sae.layer], site=self.sae.site) as outputs:
            written.read_again(self.model, {}, self.sae.site)
        length = written.response.shape[1]
        mask = written.mask[..., None]
        shape = (*written.mask.shape[:1], -1, self.sae.d_in)
        latents = self.sae.latents(outputs[self.sae.layer].reshape(shape)[:, -length:].float())
        return (latents * mask).sum(1) / mask.sum(1).clamp(min=1)


def measured_map(reading: LatentReading, directions: int, length: float, seed: int) -> EffectMap:
    """The map of effects, fitted to directions of the decoder and to random ones.

    Half of the directions are the decoder's, for they are what the map is asked about, and half are
    drawn at random, so that all of the space is seen.

    Parameters
    ----------
    reading
        Measures effects.
    directions
        Number of directions, at least 10.
    length
        The strength at which a unit vector is added.
    seed
        Seed of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    sae = reading.sae
    rows = torch.randperm(sae.d_sae, generator=generator)[: directions // 2]
    chosen = sae.W_dec.detach().cpu()[rows]
    drawn = torch.randn(directions - len(rows), sae.d_in, generator=generator)
    units = torch.cat([chosen, F.normalize(drawn, dim=1)])
    changes = [constant({sae.layer: unit}) for unit in units]
    effects = reading.effects(changes, [length] * len(changes))
    return fitted_map(units, torch.from_numpy(effects), seed)
