"""The place of a lesson in the weights: Shapley shares of its effect over components and layers.

The weights of a policy are put into its base part by part. With v(S) the effect of the base that
has the policy's weights in the parts S, the Shapley value of a part i of n is

    φ_i = Σ_{S without i} |S|! (n - |S| - 1)! / n!  [v(S ∪ {i}) - v(S)]

(Shapley 1953). The values of all parts add up to the gap v(all) - v(none), the effect of
fine-tuning. Values are taken instance by instance (a prompt, a pair), with common random numbers,
so that a share has an interval over instances.

Two games are played. That over components is exact, over all sets: ``embedding`` (with positions),
``unembedding``, ``attention``, ``mlp`` and ``norms``; tied embeddings are one part, ``embedding``.
That over layers has two parts for each block, its ``mlp`` and the ``rest``, and one part for all
that is ``outside`` the blocks; it is estimated from random orders and their reverses, each of which
adds up to the gap by itself (Castro, Gómez and Tejada 2009; reverses: Mitchell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from math import factorial
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.models.architectures import Part, parts

#: The part of the game over layers that holds all parameters outside the blocks.
OUTSIDE = "outside"
P = TypeVar("P", bound=Hashable)
#: The effect of a set of parts on every instance [instance].
Effect = Callable[[frozenset], np.ndarray]


def component_player(part: Part) -> str:
    """The player of a part in the game over components."""
    return part.component


def layer_player(part: Part) -> tuple[str, int | None]:
    """The player of a part in the game over layers: (``mlp`` or ``rest``, layer), or outside."""
    if part.layer is None:
        return (OUTSIDE, None)
    return ("mlp" if part.component == "mlp" else "rest", part.layer)


def players(model: PreTrainedModel, player_of: Callable[[Part], P]) -> list[P]:
    """The players of a game on `model`, in the order of its parameters."""
    return list(dict.fromkeys(player_of(part) for part in parts(model).values()))


def moved_players(
    base: PreTrainedModel, policy: PreTrainedModel, player_of: Callable[[Part], P]
) -> frozenset[P]:
    """The players of a game with a parameter that differs between `base` and `policy`."""
    theirs, place = dict(policy.named_parameters()), parts(base)
    return frozenset(
        player_of(place[name])
        for name, parameter in base.named_parameters()
        if not torch.equal(parameter, theirs[name])
    )


@contextmanager
def grafted(
    base: PreTrainedModel,
    policy: PreTrainedModel,
    player_of: Callable[[Part], P],
    chosen: frozenset[P],
) -> Iterator[PreTrainedModel]:
    """Yield `base` with the weights of `policy` in all parts of the `chosen` players.

    No weight is copied: the parameters point at the policy's, and back at the end of the block.

    Parameters
    ----------
    base, policy
        Models of one architecture.
    player_of
        The player of a part, :func:`component_player` or :func:`layer_player`.
    chosen
        The players whose weights are the policy's.
    """
    theirs, place = dict(policy.named_parameters()), parts(base)
    kept = {}
    try:
        for name, parameter in base.named_parameters():
            if player_of(place[name]) in chosen:
                kept[name], parameter.data = parameter.data, theirs[name].data
        yield base
    finally:
        for name, parameter in base.named_parameters():
            if name in kept:
                parameter.data = kept[name]


def exact_values(names: Sequence[P], effect: Effect) -> dict[P, np.ndarray]:
    """Shapley value of every player on every instance [instance], from all sets of players.

    A set that several values need is evaluated once, 2^n in all.
    """
    n = len(names)
    sets = [frozenset(s) for size in range(n + 1) for s in combinations(names, size)]
    of = {s: effect(s) for s in sets}
    result = {}
    for player in names:
        value = np.zeros_like(of[frozenset()], dtype=float)
        for s in sets:
            if player not in s:
                weight = factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)
                value += weight * (of[s | {player}] - of[s])
        result[player] = value
    return result


def sampled_values(
    names: Sequence[P], effect: Effect, orders: int, seed: int
) -> dict[P, np.ndarray]:
    """Shapley value of every player on every instance [instance], from random orders of players.

    Every order is used with its reverse. The values add up to the gap exactly, whatever `orders`.

    Parameters
    ----------
    names
        The players.
    effect
        The effect of a set of players.
    orders
        Number of random orders; as many reverses come with them.
    seed
        Seed of the orders.
    """
    rng = np.random.default_rng(seed)
    total = dict.fromkeys(names, 0.0)
    for _ in range(orders):
        order = [names[i] for i in rng.permutation(len(names))]
        for path in (order, order[::-1]):
            chosen: frozenset = frozenset()
            before = effect(chosen)
            for player in path:
                chosen |= {player}
                after = effect(chosen)
                total[player] = total[player] + after - before
                before = after
    return {player: total[player] / (2 * orders) for player in names}
