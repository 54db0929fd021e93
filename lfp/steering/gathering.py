"""The material of vectors from the artefacts of a cell: activations, labels and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch

from lfp.change.account.vectors import Difference
from lfp.change.choice import Pair
from lfp.feedback.rewards.base import Reward
from lfp.models.hooks import site_activations
from lfp.models.losses import divergences
from lfp.models.tokens import added_tokens, length_batches, pad_batch
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Steering
from lfp.steering import gates
from lfp.steering.changes import constant
from lfp.steering.strength import NeutralText, strengths_at
from lfp.steering.targeted import EffectMap, LatentReading, measured_map
from lfp.steering.vectors import Material

#: Share of the tokens, those at which the policy differs most from its base, that a gate is to
#: know.
CHANGED = 0.25


@dataclass(frozen=True)
class Read:
    """Texts of a pair of models, at the layer that is steered.

    Parameters
    ----------
    pair
        Base and policy.
    sae
        The dictionary of the layer and site.
    texts
        Token ids of held-out texts.
    batch_size
        Texts that are read at once.
    """

    pair: Pair
    sae: SparseAutoencoder
    texts: Sequence[Sequence[int]]
    batch_size: int

    @property
    def front(self) -> int:
        """Tokens in front of a text that the tokenizer adds.

        They are left out: their activations are alike in all texts and may be hundreds of times as
        large as others, so that what counts them tells short texts from long ones.
        """
        return len(added_tokens(self.pair.tokenizer)[0])

    def activations(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The base's activations [token, width] of every text."""
        front = self.front
        layer, result = self.sae.layer, [torch.zeros(0, self.sae.d_in)] * len(texts)
        read = site_activations(
            self.pair.base, texts, [layer], self.pair.tokenizer.pad_token_id, self.batch_size,
            site=self.sae.site,
        )  # fmt: skip
        for index, mask, values in read:
            for row, keep, i in zip(values[layer], mask, index, strict=True):
                result[i] = row[keep][front:].float()
        return result

    def labelled(self, reward: Reward) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations [token, width] of texts with feedback, and whether it is positive [token, 1].

        The texts are the third that the reward likes best, and the third that it likes least; those
        that it scores alike are of one kind.
        """
        asked = self.pair.tokenizer.batch_decode(self.texts, skip_special_tokens=True)
        scores = np.asarray(reward([""] * len(asked), asked), float)
        low, high = np.quantile(scores, [1 / 3, 2 / 3])
        chosen = np.flatnonzero((scores <= low) | (scores > high))
        values = self.activations([self.texts[i] for i in chosen])
        kinds = [[scores[i] > high] * len(rows) for i, rows in zip(chosen, values, strict=True)]
        return torch.cat(values), torch.tensor(np.concatenate(kinds))[:, None]

    @torch.no_grad()
    def changed_tokens(self) -> torch.Tensor:
        """Whether the policy differs from its base at each token of the texts [token].

        Those are the :data:`CHANGED` of the tokens with the largest KL of the next token.
        """
        base, policy, front = self.pair.base, self.pair.policy, self.front
        kl: list[torch.Tensor] = [torch.zeros(0)] * len(self.texts)
        for index in length_batches([len(ids) for ids in self.texts], self.batch_size):
            texts = [self.texts[i] for i in index]
            batch = pad_batch(texts, self.pair.tokenizer.pad_token_id, base.device)
            theirs, ours = (
                model.base_model(**batch, use_cache=False).last_hidden_state
                for model in (policy, base)
            )
            by_token = divergences(policy, theirs, ours, base)
            for row, i in zip(by_token, index, strict=True):
                kl[i] = row[front : len(self.texts[i])].cpu()
        values = torch.cat(kl)
        return values > values.quantile(1 - CHANGED)


def vector_material(
    read: Read,
    explanations: pd.DataFrame,
    reward: Reward,
    reading: LatentReading,
    neutral: NeutralText,
    asked: Steering,
    seed: int,
) -> Material:
    """What the vectors of a cell are made of.

    Parameters
    ----------
    read
        The pair of models, the dictionary of the steered layer, and held-out texts.
    explanations
        A row per latent with its statistics and its verdict.
    reward
        The score of texts.
    reading
        Measures effects on latents.
    neutral
        Text on which the length of the measured directions is found.
    asked
        Costs, and numbers of random vectors and of directions.
    seed
        Seed of what is drawn.
    """
    sae, pair = read.sae, read.pair
    generator = torch.Generator().manual_seed(seed)
    pad = pair.tokenizer.pad_token_id
    difference = Difference(
        pair.base, pair.policy, read.texts, pad, sae.site, asked.draws, generator
    )
    values, labels = read.labelled(reward)
    of_layer = explanations[(explanations["layer"] == sae.layer) & explanations["related"]]
    order = of_layer["direction"].abs().sort_values(ascending=False, kind="stable").index
    signs = np.sign(of_layer.loc[order, "direction"].fillna(1.0))

    @cache
    def effects() -> EffectMap:
        unit = torch.nn.functional.normalize(torch.randn(sae.d_in, generator=generator), dim=0)
        along = constant({sae.layer: unit})
        # So far that a random direction costs something, and does not break the model; where none
        # costs as much, as far as activations are long.
        [length] = strengths_at(lambda at: neutral.rise(along, at), [float(np.median(asked.costs))])
        if np.isnan(length):
            length = float(torch.cat(read.activations(read.texts)).norm(dim=1).median())
        return measured_map(reading, asked.directions, length, seed)

    return Material(
        difference=difference,
        layer=sae.layer,
        values=values,
        labels=labels,
        directions=sae.W_dec.detach(),
        related=dict(zip(of_layer.loc[order, "feature"].tolist(), signs.tolist(), strict=True)),
        effects=effects,
        seed=seed,
    )


def gate_of(read: Read, share: float) -> gates.Probe | None:
    """The gate of a cell, open at a `share` of the tokens; None where the policy is its base."""
    values, changed = torch.cat(read.activations(read.texts)), read.changed_tokens()
    return gates.fitted_gate(values, changed, share) if changed.any() else None
