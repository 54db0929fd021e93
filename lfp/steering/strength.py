"""Strengths at which changes cost the same: a given rise in cross-entropy on neutral text.

Two vectors at one multiple of their length are no comparison: the one that breaks the model more
changes more of whatever is measured. So every change is scaled until it raises the cross-entropy by
the same number of nats per token. The search is by bisection, and asks first where a power law
through the ends would reach the cost: for small strengths a rise goes with the strength's square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedModel

from lfp.models.hooks import edited
from lfp.models.losses import text_losses
from lfp.steering.changes import Changes, applied

#: Largest difference of a cost from the one that is asked for, as a share of the latter.
TOLERANCE = 0.02
#: Numbers of strengths that are tried: to find one that costs too much, and between the ends.
DOUBLINGS, LOOKS = 20, 30
#: Factor by which the strength grows or falls until the cost lies between two strengths.
STEP = 2.0

#: The rise in cross-entropy that a strength costs, nats per token.
Cost = Callable[[float], float]


@dataclass(frozen=True)
class NeutralText:
    """Texts on which the cost of a change is measured.

    Parameters
    ----------
    model
        The untouched model.
    sequences
        Token ids of the texts.
    pad, batch_size
        The padding token's id and the number of texts in a batch.
    site
        The part of the layers that is changed.
    """

    model: PreTrainedModel
    sequences: Sequence[Sequence[int]]
    pad: int
    batch_size: int
    site: str
    untouched: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "untouched", self.cross_entropy(self.model))

    def cross_entropy(self, model: PreTrainedModel) -> float:
        """Cross-entropy of `model`, nats per token: the mean over texts of each text's own."""
        nats, counts = text_losses(model, self.sequences, self.pad, self.batch_size)
        return float((nats / counts).mean())

    def rise(self, changes: Changes, strength: float) -> float:
        """By how many nats per token `strength` times the changes raise the cross-entropy."""
        with edited(self.model, applied(changes, strength), self.site):
            return self.cross_entropy(self.model) - self.untouched


def strengths_at(cost: Cost, targets: Sequence[float], start: float = 1.0) -> list[float]:
    """The strengths at which a change costs each of `targets`.

    Parameters
    ----------
    cost
        The cost of a strength above 0. It must reach the targets and grow with the strength near
        them; small strengths may lower the cross-entropy.
    targets
        Rises in cross-entropy, nats per token, above 0.
    start
        The strength that the search begins with.

    Returns
    -------
    list of float
        A strength for each target, whose cost misses it by :data:`TOLERANCE` of it at most; NaN
        where no strength that was tried comes so near, as for a change of 0.

    Raises
    ------
    ValueError
        If a target is not above 0.
    """
    if any(target <= 0 for target in targets):
        raise ValueError(f"costs must be above 0 nats, got {list(targets)}")
    tried: dict[float, float] = {}

    def asked(strength: float) -> float:
        if strength not in tried:
            value = cost(strength)
            # What no number comes of any more costs more than anything.
            tried[strength] = math.inf if math.isnan(value) else value
        return tried[strength]

    return [_strength_at(asked, tried, target, start) for target in targets]


def _strength_at(asked: Cost, tried: dict[float, float], target: float, start: float) -> float:
    """The strength of one target; `tried` are the costs that are known."""
    low, high = _ends(asked, tried, target, start)
    if math.isnan(high):
        return math.nan
    for look in range(LOOKS):
        best = min((low, high), key=lambda strength: abs(asked(strength) - target))
        if abs(asked(best) - target) <= TOLERANCE * target:
            return best
        middle = _between(low, high, asked(low), asked(high), target, look)
        low, high = (middle, high) if asked(middle) < target else (low, middle)
    return math.nan


def _ends(
    asked: Cost, tried: dict[float, float], target: float, start: float
) -> tuple[float, float]:
    """Neighbouring strengths of which the first costs less than the target, the second does not.

    NaN in place of a second one that was not reached.
    """
    high = min((s for s, c in tried.items() if c >= target), default=start)
    for _ in range(DOUBLINGS):
        if asked(high) >= target:
            break
        high *= STEP
    else:
        return math.nan, math.nan
    low = high / STEP
    for _ in range(DOUBLINGS):
        if asked(low) < target:
            return low, high
        low, high = low / STEP, low
    return math.nan, math.nan


def _between(low: float, high: float, less: float, more: float, target: float, look: int) -> float:
    """A strength between two, in turns that of a power law through both and their middle."""
    share = 0.5
    if look % 2 == 0 and 0 < less < more < math.inf:
        share = np.log(target / less) / np.log(more / less)
    return float(low * (high / low) ** min(max(share, 0.02), 0.98))
