"""One vector? How much of a policy is a constant that is added to its base's activations.

With a_0 and a_π the activations of base and policy at a site, v is the mean of a_π - a_0 over the
tokens of held-out texts. Two claims are asked: that v is enough, where the base with v added does
what the policy does (``sufficiency``), and that it is needed, where the policy without v does what
the base does (``necessity``). Both are one question with the roles exchanged: a source is moved
towards a target by the mean of what tells them apart, and the share of their gap that this closes
is measured, in the effect and in the distribution of the next token.

All layers together are moved one after the other: the vector of a layer is the mean of what is
still missing there when all layers before it have theirs. The vectors of single layers, added up,
would count again what a layer only hands on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.change.choice import Pair
from lfp.locus.effects import Measure, divergence_measure
from lfp.models.architectures import blocks
from lfp.models.hooks import Edit, edited, site_activations
from lfp.models.tokens import added_tokens
from lfp.reporting.progress import Progress
from lfp.settings import Account

#: The layer of a move of all layers together.
TOGETHER = -1
#: Texts that are read at once.
BATCH = 32
#: Spread of the differences at single tokens, in lengths of their mean, that is none.
ROUNDING = 1e-4
#: Columns of the rows of moves.
COLUMNS = (
    "claim", "site", "layer", "strength", "direction", "draw", "account", "instance", "value",
    "gap",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """What tells a `target` from its `source` at one site, on texts.

    Parameters
    ----------
    source, target
        Models of one architecture.
    sequences
        Token ids of texts.
    pad
        The padding token's id.
    site
        The part of the layers that is read and moved.
    draws
        Number of random vectors of either kind.
    generator
        Source of the random numbers.
    front
        Tokens in front of every text that the tokenizer adds. No vector counts them: the first
        token of a text may be hundreds of times as long as others.
    """

    source: PreTrainedModel
    target: PreTrainedModel
    sequences: Sequence[Sequence[int]]
    pad: int
    site: str
    draws: int
    generator: torch.Generator
    front: int

    @property
    def directions(self) -> list[tuple[str, int]]:
        """Names and draws of the vectors of a layer.

        They are the ``mean`` difference, ``random`` directions, and random ones of the
        ``covariance`` of the differences.
        """
        kinds = ("random", "covariance")
        return [("mean", 0), *((kind, draw) for kind in kinds for draw in range(self.draws))]

    @torch.no_grad()
    def vectors(self, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        """The vectors of every layer [direction, width], all as long as the mean difference.

        A sum of centred differences with independent normal weights has their covariance.
        """
        readings = (
            site_activations(model, self.sequences, layers, self.pad, BATCH, site=self.site)
            for model in (self.source, self.target)
        )
        total, sums = torch.zeros(1 + self.draws, 1).double(), dict.fromkeys(layers, 0.0)
        for (_, mask, before), (_, _, after) in zip(*readings, strict=True):
            mask = mask & (torch.arange(mask.shape[1], device=mask.device) >= self.front)
            tokens = int(mask.sum())
            noise = torch.randn(self.draws, tokens, generator=self.generator)
            weights = torch.cat([torch.ones(1, tokens), noise]).double()
            total += weights.sum(1, keepdim=True)
            for layer in layers:
                difference = (after[layer] - before[layer])[mask].double().cpu()
                sums[layer] = sums[layer] + weights @ difference
        result = {}
        for layer, of_layer in sums.items():
            mean = of_layer[:1] / total[:1]
            along = of_layer[1:] - total[1:] * mean
            # Where all tokens have one difference, what varies is the rounding, and no direction.
            along[along.norm(dim=1) <= ROUNDING * total[0].sqrt() * mean.norm()] = 0
            drawn = torch.randn(along.shape, generator=self.generator).double()
            others = torch.cat([drawn, along])
            unit = others / others.norm(dim=1, keepdim=True).clamp(min=torch.finfo().tiny)
            result[layer] = torch.cat([mean, mean.norm() * unit])
        return result

    def vectors_together(self) -> dict[int, torch.Tensor]:
        """The vectors of all layers, each of what is missing when those before it have theirs."""
        result: dict[int, torch.Tensor] = {}
        for layer in range(len(blocks(self.source))):
            means = {before: vectors[0] for before, vectors in result.items()}
            with edited(self.source, adding(means), self.site):
                result |= self.vectors([layer])
        return result


@dataclass(frozen=True)
class Move:
    """A move of the source: vectors by layer that are added, and what they are.

    ``layer`` is the single one that has a vector, or :data:`TOGETHER`.
    """

    layer: int
    strength: float
    direction: str
    draw: int
    vectors: Mapping[int, torch.Tensor]


def adding(vectors: Mapping[int, torch.Tensor]) -> dict[int, Edit]:
    """Edits that add `vectors` by layer to the activations at every token."""

    def edit(vector: torch.Tensor) -> Edit:
        return lambda values: values + vector.to(values)

    return {layer: edit(vector) for layer, vector in vectors.items()}


def moves(difference: Difference, settings: Account) -> Iterator[Move]:
    """All moves of a source at one site: those of single layers, and of all together."""
    together = difference.vectors_together()
    chosen = {TOGETHER: together}
    if settings.single_layers:
        alone = difference.vectors(list(together))
        chosen = {layer: {layer: vectors} for layer, vectors in alone.items()} | chosen
    for layer, by_layer in chosen.items():
        for strength in settings.strengths:
            for k, (direction, draw) in enumerate(difference.directions):
                vectors = {place: strength * of_layer[k] for place, of_layer in by_layer.items()}
                yield Move(layer, strength, direction, draw, vectors)


def vector_effects(
    pair: Pair,
    measure: Measure,
    read: Sequence[Sequence[int]],
    fitted: Sequence[Sequence[int]],
    settings: Account,
    seed: int,
) -> pd.DataFrame:
    """What constant vectors make of base and policy.

    Parameters
    ----------
    pair
        Base and policy.
    measure
        The effect of a model on every instance.
    read
        Token ids of the texts on which distributions are compared.
    fitted
        Token ids of the texts whose differences the vectors are the means of.
    settings
        Sites, strengths and number of random vectors; without a strength nothing is measured.
    seed
        Seed of the random vectors.

    Returns
    -------
    pandas.DataFrame
        A row per move, account and instance: ``claim`` (``sufficiency`` of the base, ``necessity``
        of the policy), ``site``, ``layer`` (-1 for all together), ``strength``, ``direction``
        (``mean``, ``random``, ``covariance``), ``draw``, ``account`` (``effect``,
        ``distribution``), ``instance``, ``value``, what the move changes, and ``gap``, what all of
        the way to the other model does.
    """
    frames = [pd.DataFrame(columns=COLUMNS)]
    claims = {"sufficiency": (pair.base, pair.policy), "necessity": (pair.policy, pair.base)}
    pad, generator = pair.tokenizer.pad_token_id, torch.Generator().manual_seed(seed)
    front = len(added_tokens(pair.tokenizer)[0])
    for claim, (source, target) in claims.items() if fitted and settings.strengths else ():
        accounts = {"effect": measure, "distribution": divergence_measure(target, read, pad)}
        for site in settings.sites:
            difference = Difference(
                source, target, fitted, pad, site, settings.draws, generator, front
            )
            frames += [
                frame.assign(claim=claim, site=site)
                for frame in _measured(difference, accounts, settings)
            ]
    numbers = {"layer": int, "draw": int, "instance": int}
    numbers |= dict.fromkeys(("strength", "value", "gap"), float)
    return pd.concat(frames, ignore_index=True).astype(numbers)


def _measured(
    difference: Difference, accounts: Mapping[str, Measure], settings: Account
) -> Iterator[pd.DataFrame]:
    """What every move of a source changes on every account."""
    source = difference.source
    before = {account: measure(source) for account, measure in accounts.items()}
    gaps = {
        account: measure(difference.target) - before[account]
        for account, measure in accounts.items()
    }
    for move in Progress(moves(difference, settings), desc="moves"):
        with edited(source, adding(move.vectors), difference.site):
            after = {account: measure(source) for account, measure in accounts.items()}
        for account, values in after.items():
            yield pd.DataFrame({
                "layer": move.layer, "strength": move.strength, "direction": move.direction,
                "draw": move.draw, "account": account, "instance": range(len(values)),
                "value": values - before[account], "gap": gaps[account],
            })  # fmt: skip
