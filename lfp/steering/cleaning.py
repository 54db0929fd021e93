"""Cleaning: a vector as a sum of few decoder directions that does the same to the model.

min over c of KL(model + v || model + sum c_i d_i) + l1 |c|_1, over the next token at every token of
texts, where d_i are the decoder's directions. What counts is what the model does with the vector
and not its length: a part that changes no prediction needs no latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.models.architectures import output_logits
from lfp.models.hooks import edited
from lfp.models.losses import divergences, token_values
from lfp.models.tokens import pad_batch
from lfp.steering.changes import applied, constant

#: Steps of Adam, first with the penalty and then, for the kept latents, without it; and its
#: learning rate in lengths of the vector.
STEPS, REFIT_STEPS, RATE = 200, 100, 0.02


@dataclass(frozen=True)
class Cleaned:
    """A vector in few latents.

    Parameters
    ----------
    features
        Numbers of the kept latents, those of the largest weight first.
    weights
        Their weights [latent].
    vector
        The sum of their directions [width].
    kl, kl_before
        KL [text] of the model under the vector to the model under the sum, and to the untouched
        model, nats summed over tokens.
    """

    features: list[int]
    weights: list[float]
    vector: torch.Tensor
    kl: np.ndarray
    kl_before: np.ndarray

    @property
    def effect_kept(self) -> float:
        """Share of the vector's effect that the sum has; NaN where the vector has none."""
        before = self.kl_before.sum()
        return float(1 - self.kl.sum() / before) if before > 0 else float("nan")


@dataclass(frozen=True)
class Texts:
    """Texts on which the effect of a vector at one layer is compared with that of a sum.

    Parameters
    ----------
    model
        The model that is steered.
    sequences
        Token ids.
    pad, batch_size
        The padding token's id, and texts that are read at once.
    site, layer
        Where vectors are added.
    """

    model: PreTrainedModel
    sequences: Sequence[Sequence[int]]
    pad: int
    batch_size: int
    site: str
    layer: int

    def batches(self) -> list[dict[str, torch.Tensor]]:
        """The texts, padded."""
        size = self.batch_size
        return [
            pad_batch(self.sequences[start : start + size], self.pad, self.model.device)
            for start in range(0, len(self.sequences), size)
        ]

    def states(self, batch: dict[str, torch.Tensor], vector: torch.Tensor | None) -> torch.Tensor:
        """Final hidden states [text, token, d_model] of a batch with the vector added."""
        edits = {} if vector is None else applied(constant({self.layer: vector}), 1.0)
        with edited(self.model, edits, self.site):
            return self.model.base_model(**batch, use_cache=False).last_hidden_state

    @torch.no_grad()
    def divergence(self, vector: torch.Tensor, other: torch.Tensor | None) -> np.ndarray:
        """KL [text] of the model under `vector` to the model under the `other` one, nats."""
        values = []
        for batch in self.batches():
            ours, theirs = (self.states(batch, added) for added in (vector, other))
            by_token = divergences(self.model, ours, theirs) * batch["attention_mask"]
            values.append(by_token.sum(1).double().cpu().numpy())
        return np.concatenate(values)


def cleaned(
    texts: Texts,
    tested: Texts,
    vector: torch.Tensor,
    directions: torch.Tensor,
    l1: float,
    most: int,
) -> Cleaned:
    """The vector as a sum of at most `most` directions.

    Weights may be negative: a latent can be pushed down. They begin with those of a multiple of the
    projections that is nearest to the vector; where they end, the largest are kept and fitted once
    more without the penalty, which makes all weights too small.

    Parameters
    ----------
    texts
        Texts that weights are fitted on, and the place where the vector is added.
    tested
        Other texts, on which the effect that is kept is measured.
    vector
        [width].
    directions
        The decoder's directions [latent, width], of unit norm.
    l1
        Weight of the penalty, nats per token for a sum of weights as large as the vector is long.
    most
        Number of latents that are kept, at most.

    Raises
    ------
    ValueError
        If the vector is 0: there is no effect to keep.
    """
    size = vector.norm()
    if not size:
        raise ValueError(f"the vector of layer {texts.layer} is 0: there is nothing to clean")
    projections = directions @ vector
    combined = projections @ directions
    start = projections * (combined @ vector) / combined.square().sum().clamp(min=1e-12)
    weights = _fitted(texts, vector, directions, start, l1 / float(size), STEPS)
    kept = weights.abs().topk(min(most, len(weights))).indices
    refitted = _fitted(texts, vector, directions[kept], weights[kept], 0.0, REFIT_STEPS)
    total = refitted @ directions[kept]
    return Cleaned(
        kept.tolist(), refitted.tolist(), total,
        tested.divergence(vector, total), tested.divergence(vector, None),
    )  # fmt: skip


def _fitted(
    texts: Texts,
    vector: torch.Tensor,
    directions: torch.Tensor,
    start: torch.Tensor,
    l1: float,
    steps: int,
) -> torch.Tensor:
    """The weights [latent] after some steps from `start`; a batch of texts is read in each."""
    batches = texts.batches()
    with torch.no_grad():
        aims = [texts.states(batch, vector) for batch in batches]
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], RATE * float(vector.norm()))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    with torch.enable_grad():
        for step in range(steps):
            batch, aim = batches[step % len(batches)], aims[step % len(batches)]
            loss = _mean_divergence(texts, batch, aim, weights @ directions)
            [weights.grad] = torch.autograd.grad(loss + l1 * weights.abs().sum(), [weights])
            optimizer.step()
            schedule.step()
    return weights.detach()


def _mean_divergence(
    texts: Texts, batch: dict[str, torch.Tensor], aim: torch.Tensor, vector: torch.Tensor
) -> torch.Tensor:
    """KL per token of the model in the state `aim` to the model under `vector`, with gradients."""
    model, mask = texts.model, batch["attention_mask"]

    def values(logits: torch.Tensor, aimed: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = torch.log_softmax(output_logits(model, aimed).float(), -1)
        return (wanted.exp() * (wanted - torch.log_softmax(logits, -1))).sum(-1)

    by_token = token_values(model, texts.states(batch, vector), aim, values)
    return (by_token * mask).sum() / mask.sum()
